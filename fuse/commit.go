package fuse

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// A commit brings a stage to the store: its bytes (lay.go), then the entry with a
// condition, so that nobody's work is overwritten unseen. One whose answer is lost
// is not carried out twice (once.go).

// maxRetries when others change the entry all the time.
const maxRetries = 10

// commit returns when all that was written and changed is in the store.
func (fs *FS) commit(ctx context.Context, n *node) error {
	if !n.dirty() {
		return nil
	}
	if fs.unwanted(n) {
		return fs.giveUp(ctx, n)
	}
	if !n.loaded.Load() { // left by the mounter before, and not asked for since
		if err := fs.load(ctx, n); err != nil {
			return err
		}
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return fs.commitInTurn(ctx, n)
}

// commitInTurn is commit for a caller that holds the turn: nobody writes to the
// stage meanwhile.
func (fs *FS) commitInTurn(ctx context.Context, n *node) error {
	if !n.dirty() {
		return nil
	}
	if orphan, _ := fs.table.state(n); orphan && n.isKept() {
		return nil // unlinked while open: nobody else will ever read it
	}
	if err := fs.landed(ctx, n); err != nil {
		return err
	}
	if n.inDoubt() {
		if err := fs.reread(ctx, n); err != nil {
			return err
		}
		fs.judge(ctx, n, n.stored(), false)
	}
	for range maxRetries {
		n.mu.RLock()
		base, s, pending := n.mu.entry, n.mu.stage, n.mu.pending
		n.mu.RUnlock()
		if s == nil && pending.empty() { // carried out before, as it turned out
			return nil
		}
		next := base.Clone()
		fs.dress(&next)
		var made []storage.Chunk
		if s != nil {
			var err error
			made, err = fs.lay(ctx, n, &next, s)
			if err != nil && !equalContent(base, n.stored()) { // a chunk was gone, and it was looked again
				fs.judge(ctx, n, n.stored(), false)
				continue
			}
			if err != nil {
				return err
			}
		}
		pending.apply(&next)
		x := fs.send(n, &next, ids(made))
		err := fs.put(ctx, n, next)
		if err == nil {
			fs.decide(ctx, n, n.stored(), x.number, true)
			n.mu.Lock()
			n.mu.opened = contentOf(n.mu.entry)
			n.mu.Unlock()
			fs.committed(n)
			return nil
		}
		if unknown(err) {
			return err
		}
		fs.refused(ctx, n, x)
		if !storage.Is(err, storage.Changed) {
			return err
		}
		if err := fs.reread(ctx, n); err != nil {
			return err
		}
		fs.judge(ctx, n, n.stored(), true)
	}
	return storage.Errorf(storage.Busy, "commit of node %d: others changed it %d times meanwhile", n.id, maxRetries)
}

func (n *node) isKept() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.kept
}

// put updates the entry of a node, wherever it is now. Changed when it is not as next
// remembers it, Stale when it is under none of the names that we know.
//
// An entry that S3 made becomes ours with the first change: it takes the node's
// number, which is unique. Its attributes are dressed by the caller.
func (fs *FS) put(ctx context.Context, n *node, next storage.Entry) error {
	if !next.Native {
		if n != fs.table.root {
			next.Inode = n.id
		}
		next.Native = true
		fs.memo.note(record{kind: recSeen, id: n.id, a: identity(next), b: next.Inode})
	}
	return fs.byName(ctx, n, func(p storage.Path) (missing bool, err error) {
		now, err := fs.vol.Files.Update(ctx, p, next)
		switch {
		case err == nil:
			fs.table.did(n, now)
		case storage.Is(err, storage.NotFound):
			return true, storage.Errorf(storage.Stale, "%w", err)
		case storage.Is(err, storage.Changed):
			// Callers conclude from Changed that no update of before can be carried out any
			// more. One that found another file here says nothing of those.
			if _, missing, lookErr := fs.entryAt(ctx, n, p); lookErr != nil {
				return missing, lookErr
			}
		}
		return false, err
	})
}

// reread learns the entry again after a condition failed. Stale when other files
// stand where it was.
func (fs *FS) reread(ctx context.Context, n *node) error {
	return fs.byName(ctx, n, func(p storage.Path) (missing bool, err error) { return fs.rereadAt(ctx, n, p) })
}

// rereadAt is reread for a caller that holds the tree: p is where the node is, or was
// when it is missing.
func (fs *FS) rereadAt(ctx context.Context, n *node, p storage.Path) (missing bool, err error) {
	e, missing, err := fs.entryAt(ctx, n, p)
	if err != nil {
		return missing, err
	}
	if !e.Native && !equalContent(n.stored(), e) { // S3 has put another object in its place
		return true, storage.Errorf(storage.Stale, "%q was replaced by somebody else", p)
	}
	n.learn(e, fs.memo)
	return false, nil
}

func equalContent(a, b storage.Entry) bool {
	x, y := contentOf(a), contentOf(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return a.Size == b.Size
}
