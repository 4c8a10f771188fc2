package fuse

import (
	"context"
	"encoding/json"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file looks after what no request does: content that waits for its commit
// while no handle is open, files without a name that nobody holds, and the
// length of the journal.

const (
	// compactAt is when the journal is written anew: it is read at a take-over, and
	// 64 MiB of it take a tenth of a second.
	compactAt = 64 << 20
	// houseEvery is how often it is looked after.
	houseEvery = time.Second
)

// keepHouse commits what no handle is open for, frees what nobody holds, and
// keeps the journal short, until ctx ends.
func (fs *FS) keepHouse(ctx context.Context) {
	if fs.memo.journal == nil {
		return
	}
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	fs.leftovers.Store(true)
	held := time.Now()
	for {
		if !time.Now().Before(held) {
			held = fs.sweepHeld(ctx)
		}
		if fs.leftovers.Swap(false) && !(fs.sweepMerges(ctx) && fs.sweep(ctx)) {
			fs.leftovers.Store(true)
		}
		if fs.memo.journal.Size() > compactAt {
			if err := fs.compact(); err != nil {
				fs.log.Warn("the journal was not compacted", "op", "journal", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep commits and frees what no handle is open for: what the mounter before
// has left, and what could not be committed at a close. It reports whether
// nothing is left.
func (fs *FS) sweep(ctx context.Context) bool {
	if fs.settled(ctx) != nil {
		return false
	}
	done := true
	for _, n := range fs.table.all() {
		orphan, opens := fs.table.state(n)
		if opens > 0 {
			continue
		}
		if orphan && n.isKept() {
			fs.free(ctx, n)
			fs.table.drop(n)
		}
		if n.dirty() {
			err := error(nil)
			if !n.loaded.Load() {
				err = fs.load(ctx, n)
			}
			if err == nil {
				err = fs.commit(ctx, n)
			}
			if storage.Is(err, storage.Stale) {
				fs.log.Error("content was lost: the file was removed or replaced by somebody else", "op", "recover", "node", n.id, "err", err)
				n.discard(fs)
			}
			done = done && !n.dirty()
			fs.table.drop(n)
		}
	}
	return done
}

// compact writes the journal anew.
func (fs *FS) compact() error {
	return fs.memo.journal.Compact(fs.live)
}

// live emits what is known now, while others go on.
func (fs *FS) live(emit func([]byte) error) error {
	put := func(r record) error { return emit(r.bytes()) }
	if err := put(record{kind: recHolder, name: fs.holder}); err != nil {
		return err
	}
	if err := fs.memo.live(put); err != nil {
		return err
	}
	if err := fs.redos.live(put); err != nil {
		return err
	}
	if err := fs.table.live(put); err != nil {
		return err
	}
	if err := fs.dirs.live(put); err != nil {
		return err
	}
	for _, n := range fs.table.all() {
		if err := fs.liveStage(n, put); err != nil {
			return err
		}
		if err := n.liveMerge(put); err != nil {
			return err
		}
	}
	return nil
}

// live emits the names and counts.
func (t *table) live(put func(record) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		for at := range n.links.names {
			e := n.stored()
			if err := put(record{kind: recName, id: n.id, parent: at.dir.id, name: at.name, a: identity(e), b: e.Inode}); err != nil {
				return err
			}
		}
		if n.links.lookups > 0 || n.links.opens > 0 {
			if err := put(record{kind: recCounts, id: n.id, a: n.links.lookups, b: uint64(max(n.links.opens, 0))}); err != nil {
				return err
			}
		}
	}
	return nil
}

// liveStage emits what waits for a commit.
func (fs *FS) liveStage(n *node, put func(record) error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	kept := n.mu.perhaps // known from the mounter before, and not settled yet
	if n.mu.kept {
		kept = &n.mu.entry
	}
	if kept != nil {
		r, err := keptRecord(n.id, *kept)
		if err == nil {
			err = put(r)
		}
		if err != nil {
			return err
		}
	}
	if s := n.mu.stage; s != nil {
		if err := put(record{kind: recStage, id: n.id, a: uint64(s.base), b: uint64(s.size)}); err != nil {
			return err
		}
		if s.file != nil {
			if err := put(record{kind: recSpill, id: n.id}); err != nil {
				return err
			}
		}
		for _, d := range s.dirty {
			r := record{kind: recSpan, id: n.id, a: uint64(d.from), b: uint64(d.to - d.from)}
			if s.file == nil {
				r = record{kind: recWrite, id: n.id, a: uint64(d.from), data: s.memory[d.from:d.to]}
			}
			if err := put(r); err != nil {
				return err
			}
		}
	}
	if n.mu.pending.empty() {
		return nil
	}
	data, err := json.Marshal(n.mu.pending)
	if err != nil {
		return err
	}
	return put(record{kind: recPatch, id: n.id, data: data})
}
