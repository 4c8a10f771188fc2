package fuse

import (
	"context"
	"encoding/json"
	"errors"
	iofs "io/fs"
	mathrand "math/rand/v2"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file takes over from the mounter before: it replays the journal into the
// table and the stages. What the store knows better, the entries, is asked for
// when it is needed, so a take-over does not wait for the network.

// Recover replays the journal in Options.Dir. To be called once, before Start.
func (fs *FS) Recover() error {
	if fs.opts.Dir == "" {
		return nil
	}
	r := replayed{fs: fs, kept: map[uint64]storage.Entry{}, spilled: map[uint64]bool{}, nameless: map[uint64]bool{}, over: map[string]bool{}, files: map[uint64]*rewritten{}, unseen: map[uint64]uint64{}}
	open := journal.Open
	if fs.follower != nil {
		open = journal.OpenDurable
	}
	log, err := open(fs.opts.Dir, func(b []byte) error {
		rec, err := parseRecord(b)
		if err != nil {
			return err
		}
		return r.apply(rec)
	})
	if log == nil {
		return errors.Join(err, r.closeFiles())
	}
	if r.damaged = err != nil; r.damaged {
		fs.log.Error("the journal is damaged; what is readable of it is used", "op", "recover", "path", fs.opts.Dir, "err", err)
	}
	if err := r.finish(); err != nil {
		return errors.Join(err, r.closeFiles(), fs.closeStages(), log.Close())
	}
	if err := fs.room.open(fs.opts.Dir, !fs.opts.Fresh); err != nil {
		fs.log.Warn("what the volume takes has to be counted before it is known", "op", "recover", "path", fs.opts.Dir, "err", err)
	}
	for _, n := range fs.table.all() {
		n.recount()
		if n.dirty() && (!r.damaged || r.rebooted()) { // else it is a record in the middle that is missing
			n.mu.legacy = r.legacy(n)
		}
	}
	if fs.opts.Fresh {
		fs.writer.last.Add(writerLeap)
	}
	fs.memo.journal = log
	if err := fs.foreign(r.epoch); err != nil {
		fs.memo.journal = nil
		return errors.Join(err, log.Close())
	}
	if err := fs.compact(); err != nil {
		// A session that goes on must not end for a full disk: what was settled here
		// stands in memory alone until there is room. A new one would mix its requests
		// with those of the one before.
		if fs.opts.Fresh {
			return errors.Join(err, fs.Abandon())
		}
		fs.memo.missed(err)
		return nil // a journal that is kept is still the one that is written to
	}
	fs.keepJournals()
	return nil
}

// replayed is a replay under way.
type replayed struct {
	fs      *FS
	kept    map[uint64]storage.Entry
	spilled map[uint64]bool
	// nameless are those of spilled of which the record is missing that told the file.
	nameless map[uint64]bool
	// over are the files of stages, by name, of which the journal says that nothing in
	// them waits any more.
	over map[string]bool
	// unseen are the numbers of the last commits that were known when what waits of
	// these nodes was taken over, while nobody has seen their entries since.
	unseen map[uint64]uint64
	// damaged: records are missing that were acknowledged, and nobody knows which.
	damaged bool
	// files of stages whose bytes are in the journal too (rewrite.go).
	files map[uint64]*rewritten
	// epoch of the volume's lease when the journal was written, zero when there was
	// none.
	epoch uint64
	// boot is the number of the boot of the machine that it was written in.
	boot uint64
}

// node returns the node of a record, made if need be.
func (r *replayed) node(id uint64) *node {
	t := r.fs.table
	n := t.byID[id]
	if n == nil {
		n = t.newNode(id)
		t.byID[id] = n
	}
	return n
}

func (r *replayed) apply(rec record) error {
	t := r.fs.table
	if rec.unique != 0 {
		r.fs.memo.remember(rec.unique, intent{inode: rec.a, outcome: outcomeOf(rec), brief: rec.brief()})
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
			if s := n.mu.stage; s != nil { // what told of its end is missing
				r.forget(n.id, s)
			}
			delete(t.byID, rec.id)
		}
		delete(r.unseen, rec.id)
	case recIntent: // remembered above
	case recPage:
		return r.fs.dirs.inherit(rec)
	case recRewound:
		r.fs.dirs.forget(rec.id)
	case recHolder:
		r.fs.holder, r.epoch, r.boot = rec.name, rec.a, rec.b
	case recRedo:
		return r.fs.redos.inherit(rec)
	case recRedone:
		r.fs.redos.forget(rec.id)
	case recUnkept:
		delete(r.kept, rec.id)
	case recMerge, recMerged:
		return r.applyMerge(rec)
	case recWriter:
		if rec.id != 0 {
			r.unseen[rec.id] = rec.b
			break
		}
		r.fs.writer.id = rec.a
		r.fs.writer.last.Store(max(r.fs.writer.last.Load(), rec.b))
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

// legacy is what is known of the last commit of what waits of n.
func (r *replayed) legacy(n *node) *legacy {
	l := &legacy{r.fs.writer.id, r.fs.writer.last.Load()}
	if last, ok := r.unseen[n.id]; ok {
		l.last = last
	}
	return l
}

func outcomeOf(rec record) outcome {
	if rec.kind == recRedone {
		return outcome(rec.b)
	}
	return unsettled
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
	r.fs.table.rememberLocked(n)
	delete(r.fs.table.byName, at)
	delete(n.links.names, at)
	n.links.orphan = len(n.links.names) == 0
	at.dir.links.children--
}

func (r *replayed) applyStage(rec record) error {
	n := r.node(rec.id)
	s := n.mu.stage
	if s == nil && (rec.kind == recWrite || rec.kind == recSpill || rec.kind == recSpan || rec.kind == recCut || rec.kind == recLaid) {
		// Written while the journal was compacted, and committed before the
		// compaction came to this node: then its end follows. Otherwise the record of
		// its beginning is missing.
		s = &stage{base: uncut}
		n.mu.stage = s
	}
	wrote := func(d span) {
		s.mark(d)
		n.wroteLocked(d)
		n.touchLocked()
	}
	switch rec.kind {
	case recStage:
		if s != nil {
			r.forget(n.id, s)
		}
		n.mu.stage = &stage{base: int64(rec.a), size: int64(rec.b)}
		if len(rec.data) > 0 {
			if err := json.Unmarshal(rec.data, &n.mu.stage.spare); err != nil {
				return storage.Errorf(storage.Corrupt, "unused chunks of a stage: %w", err)
			}
		}
	case recWrite:
		if r.fs.follower != nil && r.spilled[rec.id] && !r.nameless[rec.id] {
			if err := r.rewrite(rec.id, rec.data, int64(rec.a), false); err != nil {
				return err
			}
		} else {
			s.keep(r.fs, rec.data, int64(rec.a))
		}
		wrote(span{int64(rec.a), int64(rec.a) + int64(len(rec.data))})
	case recSpill:
		if s.number != rec.a {
			r.forgetFile(rec.id)
		}
		s.number = rec.a
		if r.fs.follower != nil {
			if err := r.rewrite(rec.id, s.memory, 0, true); err != nil {
				return err
			}
		}
		r.fs.memory.Add(-int64(len(s.memory)))
		s.memory = nil
		r.spilled[rec.id] = true
		delete(r.nameless, rec.id)
	case recSpan:
		if !r.spilled[rec.id] {
			r.unfound(rec.id, s)
		}
		wrote(span{int64(rec.a), int64(rec.a) + int64(rec.b)})
	case recCut:
		s.truncate(int64(rec.a))
		n.cutLocked(int64(rec.a))
	case recPatch:
		var change patch
		if err := json.Unmarshal(rec.data, &change); err != nil {
			return storage.Errorf(storage.Corrupt, "a patch of attributes: %w", err)
		}
		if rec.a == 0 {
			n.mu.pending = patch{}
		}
		n.mu.pending.add(change)
		n.changedLocked(change)
	case recClean:
		r.ended(rec.id, rec.a)
		delete(r.unseen, rec.id)
		if s != nil {
			r.forget(n.id, s)
		}
		n.mu.stage, n.mu.pending, n.mu.sent = nil, patch{}, nil
	case recCommit, recLanded, recRefused:
		return r.applySent(n, rec)
	case recLaid:
		return r.applyLaid(s, rec)
	default:
		return storage.Errorf(storage.Corrupt, "a record of unknown kind %d", rec.kind)
	}
	return nil
}

// unfound: bytes of a stage are in a file of which the record is missing that told its
// number. What was in memory is in the journal that is kept.
func (r *replayed) unfound(id uint64, s *stage) {
	r.fs.memory.Add(-int64(len(s.memory)))
	s.memory, s.number = nil, mathrand.Uint64()|1 // no file has it
	r.spilled[id], r.nameless[id] = true, true
}

// forget: nothing of a stage waits any more.
func (r *replayed) forget(id uint64, s *stage) {
	r.fs.memory.Add(-int64(len(s.memory)))
	delete(r.spilled, id)
	delete(r.nameless, id)
	r.forgetFile(id)
}

// finish opens the stages' files, clears away those that nothing waits in, and
// settles what the kernel knows.
func (r *replayed) finish() error {
	fs, t := r.fs, r.fs.table
	for _, n := range t.all() {
		if s := n.mu.stage; s != nil && !r.spilled[n.id] && n.staged() > int64(len(s.memory)) {
			r.unfound(n.id, s)
		}
	}
	if err := r.findStages(); err != nil {
		return err
	}
	for id := range r.spilled {
		if err := r.reopen(id); err != nil {
			return err
		}
	}
	if err := r.clearStages(); err != nil {
		return err
	}
	t.root.links.lookups = 1
	if fs.opts.Fresh {
		fs.memo.forgetIntents()
		fs.dirs.forgetAll()
	}
	for id, e := range r.kept {
		switch n := t.byID[id]; {
		case n == nil: // released since
		case len(n.links.names) > 0: // the removal may or may not have been carried out
			n.mu.perhaps = &e
		default:
			n.links.orphan = true
			n.keep(e)
			n.mu.kept = e.Links <= 1 // with others, which we do not know, it is no orphan
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
	if err := fs.settled(ctx); err != nil || n.loaded.Load() {
		return err
	}
	return n.eachName(ctx, func() (absence, error) {
		p, done, err := fs.at(ctx, n)
		if storage.Is(err, storage.Stale) {
			return nameless, n.removed(err)
		}
		if err != nil {
			return nameless, err
		}
		defer done()
		f, err := fs.loadFrom(ctx, n, p)
		if n.loaded.Load() { // by somebody else, if not here
			f = nameless
		}
		return f, err
	})
}

// loadFrom is one try of load, for eachName: by the name p.
func (fs *FS) loadFrom(ctx context.Context, n *node, p storage.Path) (absence, error) {
	a := fs.table.ask()
	defer fs.table.answered(a)
	e, missing, err := fs.entryAt(ctx, n, p)
	if missing {
		f := fs.table.lost(a, n, p)
		if f != nameless {
			return f, nil
		}
		return f, n.removed(err)
	}
	if err != nil {
		return nameless, err
	}
	if !fs.table.hear(a, n, e) {
		return doubtful, nil
	}
	if n.inDoubt() {
		fs.judge(ctx, n, e, false)
	}
	return nameless, nil
}

// keep makes n a file without a name whose content is there for its handles.
func (n *node) keep(e storage.Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.entry, n.mu.kept, n.mu.perhaps = e, true, nil
	n.recountLocked()
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
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.mu.entry
	r, err := keptRecord(n.id, e)
	if err != nil {
		return err
	}
	was := n.mu.perhaps
	n.mu.perhaps = &e // a compaction meanwhile notes it again
	if err := fs.memo.write(r); err != nil {
		n.mu.perhaps = was
		return err
	}
	return nil
}

// keptRecord holds the entry of a file without a name, less the adapter's own
// form of it, which the next process cannot use.
func keptRecord(id uint64, e storage.Entry) (record, error) {
	e = e.Clone()
	e.Origin = nil
	for i := range e.Chunks {
		e.Chunks[i].Origin = nil
	}
	data, err := json.Marshal(e)
	return record{kind: recKept, id: id, data: data}, err
}
