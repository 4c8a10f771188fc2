package fuse

import (
	"context"
	"encoding/json"
	"slices"
	"time"
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
		if holed := fs.memo.hole.Load() != nil; holed || fs.memo.journal.Size() > compactAt {
			if err := fs.compact(); err != nil && !holed { // a hole was told of
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
			err := fs.commit(ctx, n)
			if n.hopeless(err) {
				if err := fs.aside(ctx, n, err); err != nil {
					fs.log.Warn("what cannot be committed waits to be kept aside", "op", "recover", "node", n.id, "err", err)
				}
			}
			done = done && !n.dirty()
			fs.table.drop(n)
		}
	}
	return done
}

// compact writes the journal anew.
func (fs *FS) compact() error {
	return fs.memo.compact(fs.live)
}

// live emits what is known now, while others go on.
func (fs *FS) live(emit func([]byte) error) error {
	put := func(r record) error { return emit(r.bytes()) }
	if err := put(record{kind: recHolder, name: fs.holder, a: fs.opts.Fence.epoch(), b: fs.boot}); err != nil {
		return err
	}
	if err := put(record{kind: recWriter, a: fs.writer.id, b: fs.writer.last.Load()}); err != nil {
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
		if err := fs.flushStage(n); err != nil {
			return err
		}
		if err := n.liveMerge(put); err != nil {
			return err
		}
	}
	// Last, since what is counted or appended is remembered under the locks that were
	// taken above: what was recorded before this began is remembered by now.
	return fs.memo.live(put)
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
	s := n.mu.stage
	if s != nil {
		data, err := json.Marshal(s.spare)
		if err != nil {
			return err
		}
		if err := put(record{kind: recStage, id: n.id, a: uint64(s.base), b: uint64(s.size), data: data}); err != nil {
			return err
		}
		if s.file != nil || s.lost != nil {
			if err := put(record{kind: recSpill, id: n.id, a: s.number}); err != nil {
				return err
			}
		}
		for _, c := range s.laid {
			if err := put(laidRecord(n.id, c)); err != nil {
				return err
			}
		}
		if err := liveSpans(n.id, s, n.waitingLocked(), put); err != nil {
			return err
		}
	}
	if !n.mu.pending.empty() {
		data, err := json.Marshal(n.mu.pending)
		if err != nil {
			return err
		}
		if err := put(record{kind: recPatch, id: n.id, data: data}); err != nil {
			return err
		}
	}
	for _, x := range n.mu.sent {
		if err := put(commitRecord(n.id, x)); err != nil {
			return err
		}
	}
	if l := n.mu.legacy; l != nil {
		return put(legacyRecord(n.id, l))
	}
	return nil
}

// waitingLocked are the ranges of the stage that a commit may need. What was written
// since a commit whose answer is not known may be uploaded; if that one was carried
// out, it is committed from here.
func (n *node) waitingLocked() []span {
	spans := slices.Clone(n.mu.stage.dirty)
	for _, x := range n.mu.sent {
		for _, d := range x.since.dirty {
			spans = addSpan(spans, d)
		}
	}
	return spans
}

// liveSpans emits ranges of a stage, with their bytes when no file has them.
func liveSpans(id uint64, s *stage, spans []span, put func(record) error) error {
	for _, d := range spans {
		r := record{kind: recSpan, id: id, a: uint64(d.from), b: uint64(d.to - d.from)}
		if s.file == nil && s.lost == nil {
			r = record{kind: recWrite, id: id, a: uint64(d.from), data: s.memory[d.from:d.to]}
		}
		if err := put(r); err != nil {
			return err
		}
	}
	return nil
}
