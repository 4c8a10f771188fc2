package fuse

import (
	"context"
	"slices"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// tree keeps what changes entries and names apart from a folder that moves with
// them. The store moves a folder child by child: a commit below it meanwhile would
// be written to a name that is copied already, and be lost, or would not find its
// file; a look-up would not find what is there. So a move holds both subtrees
// alone, and everybody else shares the paths that he works at.
//
// One lock of the whole volume would do the same and lost: a folder of a million
// files moves for minutes, and nobody beside it should wait. Another mount is not
// kept apart: what it commits below a folder that moves here is lost or refused as
// the store decides (SEMANTICS.md).
//
// Whoever holds the tree takes no node's turn and does not ask for the tree again:
// a hold is taken at once for all its paths, so that nobody waits while he holds.
type tree struct {
	mu struct {
		sync.Mutex
		// shared counts who works at a path.
		shared map[storage.Path]int
		// claims hold subtrees alone, or wait for it, in the order that they came.
		// INVARIANT: those that hold do not overlap, and nobody shares a path within.
		claims []*claim
		// freed is closed when somebody lets go; nil when nobody waits.
		freed chan struct{}
	}
}

// claim holds subtrees alone, or wants to.
type claim struct{ of []storage.Path }

func newTree() *tree {
	t := &tree{}
	t.mu.shared = map[storage.Path]int{}
	return t
}

// share waits until none of the paths is within a folder that moves, and keeps it
// so until the returned func is called. One that waits to move goes first, so that
// it comes to its turn.
func (t *tree) share(ctx context.Context, paths ...storage.Path) (func(), error) {
	for {
		t.mu.Lock()
		if !slices.ContainsFunc(t.mu.claims, func(c *claim) bool { return c.covers(paths) }) {
			for _, p := range paths {
				t.mu.shared[p]++
			}
			t.mu.Unlock()
			return func() { t.unshare(paths) }, nil
		}
		if err := t.awaitUnlock(ctx); err != nil {
			return nil, err
		}
	}
}

func (t *tree) unshare(paths []storage.Path) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range paths {
		if t.mu.shared[p]--; t.mu.shared[p] == 0 {
			delete(t.mu.shared, p)
		}
	}
	t.tellLocked()
}

// alone waits until nobody works within the subtrees, and keeps it so until the
// returned func is called.
func (t *tree) alone(ctx context.Context, subtrees ...storage.Path) (func(), error) {
	c, done := t.claim(subtrees...)
	for {
		t.mu.Lock()
		if t.isAloneLocked(c) {
			t.mu.Unlock()
			return done, nil
		}
		if err := t.awaitUnlock(ctx); err != nil {
			done()
			return nil, err
		}
	}
}

// claim lets nobody new into the subtrees until the returned func is called. Before
// the first request is served it is the same as alone.
func (t *tree) claim(subtrees ...storage.Path) (*claim, func()) {
	c := &claim{of: subtrees}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.claims = append(t.mu.claims, c)
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.mu.claims = slices.DeleteFunc(t.mu.claims, func(x *claim) bool { return x == c })
		t.tellLocked()
	}
}

func (t *tree) isAloneLocked(c *claim) bool {
	for _, other := range t.mu.claims {
		if other == c {
			break
		}
		if other.overlaps(c) {
			return false
		}
	}
	for p := range t.mu.shared {
		if c.covers([]storage.Path{p}) {
			return false
		}
	}
	return true
}

// awaitUnlock gives the lock back and waits until somebody lets go.
func (t *tree) awaitUnlock(ctx context.Context) error {
	if t.mu.freed == nil {
		t.mu.freed = make(chan struct{})
	}
	freed := t.mu.freed
	t.mu.Unlock()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tree) tellLocked() {
	if t.mu.freed != nil {
		close(t.mu.freed)
		t.mu.freed = nil
	}
}

// covers reports whether one of the paths lies within the subtrees.
func (c *claim) covers(paths []storage.Path) bool {
	return slices.ContainsFunc(c.of, func(of storage.Path) bool {
		return slices.ContainsFunc(paths, func(p storage.Path) bool { return p.Within(of) })
	})
}

func (c *claim) overlaps(other *claim) bool { return c.covers(other.of) || other.covers(c.of) }

// at returns where a node is, and keeps it there: no folder above it is moved by us
// until the func is called.
func (fs *FS) at(ctx context.Context, n *node) (storage.Path, func(), error) {
	paths, done, err := fs.hold(ctx, fs.tree.share, []place{{dir: n}})
	if err != nil {
		return "", nil, err
	}
	return paths[0], done, nil
}

// under is at for names in directories, all held at once; a place without a name is
// the node itself.
func (fs *FS) under(ctx context.Context, places ...place) ([]storage.Path, func(), error) {
	return fs.hold(ctx, fs.tree.share, places)
}

// moving is under for folders that are about to move.
func (fs *FS) moving(ctx context.Context, places ...place) ([]storage.Path, func(), error) {
	return fs.hold(ctx, fs.tree.alone, places)
}

// hold begins when what was left half done is settled: no path is to be believed
// until then. A move that was given up while we waited for it is settled first, too.
func (fs *FS) hold(ctx context.Context, take func(context.Context, ...storage.Path) (func(), error), places []place) ([]storage.Path, func(), error) {
	for {
		if err := fs.settled(ctx); err != nil {
			return nil, nil, err
		}
		paths, err := fs.table.paths(places)
		if err != nil {
			return nil, nil, err
		}
		done, err := take(ctx, paths...)
		if err != nil {
			return nil, nil, err
		}
		if fs.redos.waiting.Load() == 0 && fs.table.stand(places, paths) {
			return paths, done, nil
		}
		done() // moved while we waited
	}
}
