package fuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file takes over from the mounter before: it replays the journal into the
// table and the stages. What the store knows better, the entries, is asked for
// when it is needed, so a take-over does not wait for the network.

const (
	// compactAt is when the journal is written anew: it is read at a take-over, and
	// 64 MiB of it take a tenth of a second.
	compactAt = 64 << 20
	// houseEvery is how often it is looked after.
	houseEvery = time.Second
)

// Recover replays the journal in Options.Dir. To be called once, before Start.
func (fs *FS) Recover() error {
	if fs.opts.Dir == "" {
		return nil
	}
	r := replayed{fs: fs, kept: map[uint64]storage.Entry{}, spilled: map[uint64]bool{}}
	log, err := journal.Open(fs.opts.Dir, func(b []byte) error {
		rec, err := parseRecord(b)
		if err != nil {
			return err
		}
		return r.apply(rec)
	})
	if log == nil {
		return err
	}
	if err != nil {
		fs.log.Error("the journal is damaged; what is readable of it is used", "op", "recover", "path", fs.opts.Dir, "err", err)
	}
	if err := r.finish(); err != nil {
		return errors.Join(err, log.Close())
	}
	fs.memo.journal = log
	return fs.compact()
}

// replayed is a replay under way.
type replayed struct {
	fs      *FS
	kept    map[uint64]storage.Entry
	spilled map[uint64]bool
}

// node returns the node of a record, made if need be.
func (r *replayed) node(id uint64) *node {
	t := r.fs.table
	n := t.byID[id]
	if n == nil {
		n = newNode(id)
		t.byID[id] = n
	}
	return n
}

func (r *replayed) apply(rec record) error {
	t := r.fs.table
	if rec.unique != 0 {
		r.fs.memo.remember(rec.unique, intent{inode: rec.a})
	}
	switch rec.kind {
	case recName:
		n, at := r.node(rec.id), place{r.node(rec.parent), rec.name}
		r.identify(n, rec)
		if old := t.byName[at]; old != nil && old != n {
			r.unname(at)
		}
		if t.byName[at] == nil {
			n.links.names[at] = struct{}{}
			n.links.orphan = false
			t.byName[at] = n
			at.dir.links.children++
		}
	case recSeen:
		r.identify(r.node(rec.id), rec)
	case recUnname:
		r.unname(place{r.node(rec.parent), rec.name})
	case recCounts:
		n := r.node(rec.id)
		n.links.lookups, n.links.opens = rec.a, int(rec.b)
	case recGone:
		if n := t.byID[rec.id]; n != nil && n != t.root {
			for at := range n.links.names {
				r.unname(at)
			}
			delete(t.byID, rec.id)
		}
	case recIntent: // remembered above
	case recKept:
		var e storage.Entry
		if err := json.Unmarshal(rec.data, &e); err != nil {
			return storage.Errorf(storage.Corrupt, "the entry of a removed file: %w", err)
		}
		r.kept[rec.id] = e
	default:
		return r.applyStage(rec)
	}
	return nil
}

// identify tells whose node it is.
func (r *replayed) identify(n *node, rec record) {
	n.mu.entry.Mode = iofs.FileMode(rec.a >> 1)
	n.mu.entry.Native = rec.a&1 != 0
	n.mu.entry.Inode = rec.b
}

func (r *replayed) unname(at place) {
	n := r.fs.table.byName[at]
	if n == nil {
		return
	}
	delete(r.fs.table.byName, at)
	delete(n.links.names, at)
	n.links.orphan = len(n.links.names) == 0
	at.dir.links.children--
}

func (r *replayed) applyStage(rec record) error {
	n := r.node(rec.id)
	s := n.mu.stage
	if s == nil && (rec.kind == recWrite || rec.kind == recSpill || rec.kind == recSpan || rec.kind == recCut) {
		// Written while the journal was compacted, and committed before the
		// compaction came to this node: recClean follows.
		return nil
	}
	touch := func() {
		now := time.Now()
		n.mu.pending.add(patch{Mtime: &now, Ctime: &now})
	}
	switch rec.kind {
	case recStage:
		n.mu.stage = &stage{base: int64(rec.a), size: int64(rec.b)}
		delete(r.spilled, rec.id)
	case recWrite:
		s.keep(r.fs, rec.data, int64(rec.a))
		s.dirty = addSpan(s.dirty, span{int64(rec.a), int64(rec.a) + int64(len(rec.data))})
		s.size = max(s.size, int64(rec.a)+int64(len(rec.data)))
		touch()
	case recSpill:
		r.fs.memory.Add(-int64(len(s.memory)))
		s.memory = nil
		r.spilled[rec.id] = true
	case recSpan:
		s.dirty = addSpan(s.dirty, span{int64(rec.a), int64(rec.a) + int64(rec.b)})
		s.size = max(s.size, int64(rec.a)+int64(rec.b))
		touch()
	case recCut:
		s.truncate(int64(rec.a))
	case recPatch:
		n.mu.pending = patch{}
		if err := json.Unmarshal(rec.data, &n.mu.pending); err != nil {
			return storage.Errorf(storage.Corrupt, "a patch of attributes: %w", err)
		}
	case recClean:
		if s != nil {
			r.fs.memory.Add(-int64(len(s.memory)))
		}
		n.mu.stage, n.mu.pending = nil, patch{}
		delete(r.spilled, rec.id)
	default:
		return storage.Errorf(storage.Corrupt, "a record of unknown kind %d", rec.kind)
	}
	return nil
}

// finish opens the stages' files, removes those that are committed, and settles
// what the kernel knows.
func (r *replayed) finish() error {
	fs, t := r.fs, r.fs.table
	for id := range r.spilled {
		f, err := os.OpenFile(fs.stagePath(id), os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("content that waits for its commit: %w", err)
		}
		r.node(id).mu.stage.file = f
	}
	files, err := os.ReadDir(fs.opts.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		var id uint64
		name, ok := strings.CutPrefix(f.Name(), stagePrefix)
		if _, err := fmt.Sscan(name, &id); !ok || err != nil || r.spilled[id] {
			continue
		}
		if err := os.Remove(filepath.Join(fs.opts.Dir, f.Name())); err != nil {
			return err
		}
	}
	t.root.links.lookups = 1
	if fs.opts.Fresh {
		fs.memo.forgetIntents()
	}
	for id, e := range r.kept {
		switch n := t.byID[id]; {
		case n == nil: // released since
		case len(n.links.names) > 0: // the removal may or may not have been carried out
			n.mu.perhaps = &e
		default:
			n.links.orphan = true
			n.keep(e)
		}
	}
	if !fs.opts.Fresh {
		return nil
	}
	// The kernel knows nothing of the session before: what stays is what waits.
	all := t.all()
	for _, n := range all {
		if n != t.root {
			n.links.lookups, n.links.opens = 0, 0
		}
	}
	for _, n := range all {
		if !n.isKept() {
			t.drop(n)
		}
	}
	return nil
}

// load learns the entry of a node that the mounter before knew.
func (fs *FS) load(ctx context.Context, n *node) error {
	p, err := fs.table.path(n)
	if err != nil {
		return n.removed(err)
	}
	e, err := fs.vol.Files.Lookup(ctx, p)
	if storage.Is(err, storage.NotFound) || err == nil && n != fs.table.root && !sameFile(n, e) {
		for _, at := range fs.table.names(n) {
			fs.table.unbind(at.dir, at.name)
		}
		if n.removed(err) == nil {
			return nil
		}
		return storage.Errorf(storage.Stale, "%q was removed or replaced by somebody else", p)
	}
	if err != nil {
		return err
	}
	n.learn(e)
	return nil
}

// keep makes n a file without a name whose content is there for its handles.
func (n *node) keep(e storage.Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.entry, n.mu.kept, n.mu.perhaps = e, true, nil
	n.loaded.Store(true)
}

// removed returns nil when it was the mounter before that took the last name of
// n away, and otherwise err.
func (n *node) removed(err error) error {
	n.mu.RLock()
	e := n.mu.perhaps
	n.mu.RUnlock()
	if e == nil {
		return err
	}
	n.keep(*e)
	return nil
}

// noteKept writes down what the open handles of a file that loses its last name
// still need.
func (fs *FS) noteKept(n *node) error {
	e := n.stored()
	e.Origin = nil
	e.Chunks = append([]storage.Chunk(nil), e.Chunks...)
	for i := range e.Chunks {
		e.Chunks[i].Origin = nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return fs.memo.write(record{kind: recKept, id: n.id, data: data})
}

// keepHouse commits what no handle is open for, frees what nobody holds, and
// keeps the journal short, until ctx ends.
func (fs *FS) keepHouse(ctx context.Context) {
	if fs.memo.journal == nil {
		return
	}
	tick := time.NewTicker(houseEvery)
	defer tick.Stop()
	fs.leftovers.Store(true)
	for {
		if fs.leftovers.Swap(false) && !fs.sweep(ctx) {
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
	if err := fs.memo.live(put); err != nil {
		return err
	}
	if err := fs.table.live(put); err != nil {
		return err
	}
	for _, n := range fs.table.all() {
		if err := fs.liveStage(n, put); err != nil {
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
	if n.mu.kept {
		e := n.mu.entry.Clone()
		e.Origin = nil
		for i := range e.Chunks {
			e.Chunks[i].Origin = nil
		}
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if err := put(record{kind: recKept, id: n.id, data: data}); err != nil {
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
