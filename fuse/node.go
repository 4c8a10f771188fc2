package fuse

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// node is one file, directory or other inode that the kernel knows of.
type node struct {
	// id is the number that the kernel calls it by, and its inode number.
	id uint64
	// turn is held by whoever changes the file, over the calls to the store: a
	// semaphore of one that a waiter can leave.
	turn chan struct{}

	// room of the volume, for what is staged here.
	room *room

	// links is under table.mu.
	links struct {
		names map[place]struct{}
		// lookups is how often the kernel was given this node and has not
		// forgotten it; opens how many handles are open; children how many nodes
		// have a name in it.
		lookups  uint64
		opens    int
		children int
		// orphan: the last name is gone, by us or by others.
		orphan bool
		// was is the path before that.
		was storage.Path
	}

	// loaded is set once the entry was learnt in this process: a mounter that
	// took over knows names first and asks for the rest when it is needed.
	loaded atomic.Bool
	// view is the content of entry, resolved, or that of an earlier one.
	view atomic.Pointer[view]
	// commits counts those of this process.
	commits atomic.Uint32

	mu struct {
		sync.RWMutex
		// entry is what the store last said; stage overlays it.
		entry storage.Entry
		// known is when; zero is never, or doubted.
		known time.Time
		// stage holds content that is not committed; nil when there is none.
		stage *stage
		// grown is how much more the file takes than its entry holds (share.go).
		grown int64
		// pending are changes of attributes that go with the next commit.
		pending patch
		// merging is a chunk on its way into the entry; nil when there is none.
		merging *merging
		// sent are commits whose answer is not known (once.go).
		sent []*sent
		// legacy is set while what waits was left by the mounter before, and the entry
		// has not been seen.
		legacy *legacy
		// kept: the last name was removed while handles were open, and the content
		// was left for them.
		kept bool
		// removed: we have taken the last name away while no handle was open.
		removed bool
		// perhaps is the entry of a file whose removal the mounter before had begun.
		perhaps *storage.Entry
		// opened is the content that the kernel's page cache was filled from.
		opened []storage.ChunkID
	}
}

// place is a name in a directory.
type place struct {
	dir  *node
	name string
}

func (n *node) nodeID() uint64 {
	if n == nil {
		return 0
	}
	return n.id
}

// begin takes the turn; the returned func gives it back.
func (n *node) begin(ctx context.Context) (func(), error) {
	select {
	case n.turn <- struct{}{}:
		return func() { <-n.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// learn keeps what the store said.
func (n *node) learn(e storage.Entry, m *memo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.claimLocked(e, m)
	n.mu.entry, n.mu.known = e, time.Now()
	n.loaded.Store(true)
	n.recountLocked()
}

// doubt makes the next look go to the store.
func (n *node) doubt() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.known = time.Time{}
}

// stored returns what the store last said.
func (n *node) stored() storage.Entry {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.entry
}

// shown is the entry as applications see it: with what is not committed.
func (n *node) shown() storage.Entry {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e := n.mu.entry
	n.mu.pending.apply(&e)
	e.Size = n.sizeLocked()
	return e
}

// sizeLocked is the size that applications see.
func (n *node) sizeLocked() int64 {
	if s := n.mu.stage; s != nil {
		return s.length(n.mu.entry.Size)
	}
	return n.mu.entry.Size
}

// dirty reports whether something waits for a commit.
func (n *node) dirty() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.stage != nil || !n.mu.pending.empty()
}

// fresh reports whether what is known is younger than ttl, or ours alone: what
// is not committed is not looked up again.
func (n *node) fresh(ttl time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.stage != nil || !n.mu.pending.empty() || time.Since(n.mu.known) < ttl
}

// discard forgets what is not committed, and frees what was uploaded of it.
func (n *node) discard(ctx context.Context, fs *FS) {
	n.mu.Lock()
	s := n.mu.stage
	sent := n.mu.sent
	n.mu.stage, n.mu.pending, n.mu.sent = nil, patch{}, nil
	n.recountLocked()
	told := fs.memo.note(record{kind: recClean, id: n.id, a: s.spent()})
	if s != nil {
		s.voidLocked(span{0, uncut})
	}
	n.mu.Unlock()
	if s == nil {
		return
	}
	s.close(fs, n.id, told)
	if len(sent) == 0 && told { // else somebody may show them, or the next mounter read them
		fs.freeChunks(ctx, n, append(ids(s.laid), s.spare...))
	}
}
