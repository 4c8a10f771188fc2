package fuse

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-csi/holdfast/storage"
)

// A change of names is a call to the store, or several, and the mounter can die
// between any two of them, or after the last one and before it has noted so. So
// what is about to be done is written down first, with all that is needed to
// tell later how far it went: a redo record. Whoever takes over settles what is
// open (settle.go) before it looks at any name, and a request that is asked for
// again is answered from the outcome.
//
// Deciding by the error of a second try was the design that lost: another writer
// may have been there meanwhile, and its file would be moved or removed.

// redo is one record. What it says of the store are paths, since the folders of
// the table may be unknown to the next session.
type redo struct {
	ID     uint64 `json:"id"`
	Unique uint64 `json:"unique,omitempty"`
	Op     string `json:"op"`
	// From and To are the names in the store; a removal has no To, and a link's
	// From is a name that the file has already.
	From storage.Path `json:"from"`
	To   storage.Path `json:"to,omitempty"`
	// Dir and Name, ToDir and ToName are the same in the table.
	Dir    uint64 `json:"dir,omitempty"`
	Name   string `json:"name,omitempty"`
	ToDir  uint64 `json:"toDir,omitempty"`
	ToName string `json:"toName,omitempty"`
	// Node is the file that gets or loses a name, Inode its number in the store.
	Node  uint64 `json:"node"`
	Inode uint64 `json:"inode"`
	// Link marks a link in the file's entry; Begun is set while the mark stands
	// there to become a name, and not while it is taken back.
	Link  string `json:"link,omitempty"`
	Begun bool   `json:"begun,omitempty"`
	// Target is the file that a rename replaces, and TargetInode its number in the
	// store; zero when there is none.
	Target      uint64 `json:"target,omitempty"`
	TargetInode uint64 `json:"targetInode,omitempty"`
	// Held: the file that loses its last name is open, and becomes an orphan.
	Held bool `json:"held,omitempty"`
	// spared is set when it was settled as not made.
	spared *spared
}

const (
	redoLink   = "link"
	redoRename = "rename"
	redoRemove = "remove"
)

// outcome of a change of names.
type outcome uint8

const (
	unsettled outcome = iota
	happened
	undone
)

// redos are the records that are open.
type redos struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*redo
	// left are those that nobody is at work on: the mounter before has left them,
	// or the store gave no answer.
	left map[uint64]*redo
	// waiting is the number of left, to be read without the lock.
	waiting atomic.Int32
	// turn is held by whoever settles.
	turn chan struct{}
}

func newRedos() *redos {
	return &redos{open: map[uint64]*redo{}, left: map[uint64]*redo{}, turn: make(chan struct{}, 1)}
}

// plan writes down what is about to be done.
func (fs *FS) plan(r *redo) error {
	fs.redos.mu.Lock()
	fs.redos.last++
	r.ID = fs.redos.last
	fs.redos.open[r.ID] = r
	fs.redos.mu.Unlock()
	r.Unique &^= replayBit
	err := fs.replan(r)
	if err == nil && fs.follower.owes() {
		// What the disk's journal says to wait is found by its name after a power cut.
		err = fs.flushJournal()
	}
	if err != nil {
		fs.spare(fs.table.get(r.losing()), r.Held)
		fs.conclude(r, undone)
	}
	return err
}

// begun notes that the mark of a link stands in its file's entry, or that it is
// about to be taken back.
func (fs *FS) begun(r *redo, is bool) error {
	fs.redos.mu.Lock()
	r.Begun = is
	fs.redos.mu.Unlock()
	return fs.replan(r)
}

// replan writes a record again, as it is now.
func (fs *FS) replan(r *redo) error {
	rec, err := redoRecord(r)
	if err != nil {
		return err
	}
	return fs.memo.write(rec)
}

func redoRecord(r *redo) (record, error) {
	data, err := json.Marshal(r)
	return record{kind: recRedo, id: r.ID, a: r.Inode, unique: r.Unique, data: data}, err
}

// conclude notes how it ended.
func (fs *FS) conclude(r *redo, o outcome) {
	fs.redos.mu.Lock()
	delete(fs.redos.open, r.ID)
	delete(fs.redos.left, r.ID)
	fs.redos.waiting.Store(int32(len(fs.redos.left))) //nolint:gosec // a handful
	fs.redos.mu.Unlock()
	if r.Unique != 0 {
		fs.memo.remember(r.Unique, intent{inode: r.Inode, outcome: o, spared: r.spared})
	}
	fs.memo.note(record{kind: recRedone, id: r.ID, unique: r.Unique, a: r.Inode, b: uint64(o)})
}

// ended concludes a redo by the error that its calls ended with, and returns the
// error. When that does not tell what became of it, it is settled later.
func (fs *FS) ended(r *redo, err error) error {
	switch {
	case err == nil:
		fs.conclude(r, happened)
	case storage.IsContext(err) || storage.Is(err, storage.Unavailable) || storage.Is(err, storage.Other):
		fs.redos.mu.Lock()
		fs.redos.left[r.ID] = r
		fs.redos.waiting.Store(int32(len(fs.redos.left))) //nolint:gosec // a handful
		fs.redos.mu.Unlock()
		fs.leftovers.Store(true)
	default:
		fs.spare(fs.table.get(r.losing()), r.Held)
		fs.conclude(r, undone)
	}
	return err
}

// losing is the node that loses a name for good, or zero.
func (r *redo) losing() uint64 {
	if r.Op == redoRemove {
		return r.Node
	}
	return r.Target
}

// settled returns when nothing is left to be settled: names are not to be
// believed before.
func (fs *FS) settled(ctx context.Context) error {
	if fs.redos.waiting.Load() == 0 {
		return nil
	}
	select {
	case fs.redos.turn <- struct{}{}:
		defer func() { <-fs.redos.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	fs.redos.mu.Lock()
	left := make([]*redo, 0, len(fs.redos.left))
	for _, r := range fs.redos.left {
		left = append(left, r)
	}
	fs.redos.mu.Unlock()
	slices.SortFunc(left, func(a, b *redo) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range left {
		o, err := fs.settle(ctx, r)
		if storage.IsContext(err) || storage.Is(err, storage.Unavailable) {
			return err
		}
		if err != nil {
			fs.log.Error("a change of names that was cut short stays as it is", "op", r.Op, "path", r.From, "err", err)
			o = undone
		}
		fs.conclude(r, o)
	}
	return nil
}

// inherit keeps a record of the mounter before.
func (rs *redos) inherit(rec record) error {
	r := &redo{}
	if err := json.Unmarshal(rec.data, r); err != nil {
		return storage.Errorf(storage.Corrupt, "a redo record: %w", err)
	}
	rs.last = max(rs.last, r.ID)
	rs.left[r.ID] = r
	rs.open[r.ID] = r
	rs.waiting.Store(int32(len(rs.left))) //nolint:gosec // a handful
	return nil
}

// forget drops a record of the mounter before that was concluded.
func (rs *redos) forget(id uint64) {
	rs.last = max(rs.last, id)
	delete(rs.left, id)
	delete(rs.open, id)
	rs.waiting.Store(int32(len(rs.left))) //nolint:gosec // a handful
}

// live emits what is open, for a compaction.
func (rs *redos) live(put func(record) error) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, r := range rs.open {
		rec, err := redoRecord(r)
		if err == nil {
			err = put(rec)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
