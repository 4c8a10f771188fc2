package fuse

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"

	"github.com/holdfast-csi/holdfast/storage"
)

// A commit is carried out once, though its answer may be lost with a connection
// or with the mounter. Each carries a number of its writer, which the entry
// remembers (storage.Entry.Commits), and is noted before it is sent. What an
// entry shows later decides: with the number, it was carried out, whatever others
// have written over it since, and must not be carried out again; without, it was
// not, or not yet. A late one fails its condition as soon as a newer one
// succeeds, so nothing of it is freed before.

// writer numbers the commits of one volume on one node, for as long as its folder
// lives.
type writer struct {
	id   uint64
	last atomic.Uint64
}

// atLeast has the next commit have a number above one that an entry has: the journal
// may not know it (claimLocked).
func (w *writer) atLeast(number uint64, m *memo) {
	for last := w.last.Load(); number > last; last = w.last.Load() {
		if w.last.CompareAndSwap(last, number) {
			m.note(record{kind: recWriter, a: w.id, b: number})
			return
		}
	}
}

// writerLeap is how many numbers a new session leaves out: a power cut may have taken
// the end of the journal, and with it commits whose numbers stand in entries. No two
// commits have one number.
const writerLeap = 1 << 32

// sent is a commit whose answer is not known.
type sent struct {
	number uint64
	// noted: the journal has it, so the next mounter knows that it may have been
	// carried out.
	noted bool
	// made are the chunks that were made for it alone.
	made []storage.ChunkID
	// since is what was written after it, as a stage without bytes, and pending
	// what was changed.
	since   stage
	pending patch
}

// unknown reports whether a change that failed with err may be carried out all
// the same.
func unknown(err error) bool {
	return storage.IsContext(err) || storage.Is(err, storage.Unavailable) || storage.Is(err, storage.Other)
}

// send notes a commit that is about to be sent, and marks next with it.
func (fs *FS) send(n *node, next *storage.Entry, made []storage.ChunkID) *sent {
	x := &sent{number: fs.writer.last.Add(1), made: made, since: stage{base: uncut}}
	next.Commit(storage.Commit{Writer: fs.writer.id, Number: x.number})
	n.mu.Lock()
	defer n.mu.Unlock()
	x.noted = fs.memo.note(commitRecord(n.id, x))
	n.mu.sent = append(n.mu.sent, x)
	return x
}

// sentRecord is what recCommit holds: in a compacted journal also what has been
// done since.
type sentRecord struct {
	Made    []storage.ChunkID `json:"made,omitempty"`
	Since   bool              `json:"since,omitempty"`
	Base    int64             `json:"base,omitempty"`
	Size    int64             `json:"size,omitempty"`
	Dirty   [][2]int64        `json:"dirty,omitempty"`
	Pending patch             `json:"pending"`
}

func commitRecord(id uint64, x *sent) record {
	d := sentRecord{Made: x.made}
	if !x.since.empty() || !x.pending.empty() {
		d.Since, d.Base, d.Size, d.Pending = true, x.since.base, x.since.size, x.pending
		for _, r := range x.since.dirty {
			d.Dirty = append(d.Dirty, [2]int64{r.from, r.to})
		}
	}
	data, _ := json.Marshal(d) // numbers and strings
	return record{kind: recCommit, id: id, a: x.number, data: data}
}

// refused takes back a commit that was answered: not carried out.
func (fs *FS) refused(ctx context.Context, n *node, x *sent) {
	n.mu.Lock()
	n.mu.sent = slices.DeleteFunc(n.mu.sent, func(y *sent) bool { return x == y })
	fs.memo.note(record{kind: recRefused, id: n.id, a: x.number})
	n.mu.Unlock()
	fs.freeChunks(ctx, n, x.made)
}

// judge decides about commits whose answer is not known, by the entry as it was
// read since. final says that no other one can be carried out any more.
func (fs *FS) judge(ctx context.Context, n *node, e storage.Entry, final bool) {
	number := e.Committed(fs.writer.id)
	fs.writer.atLeast(number, fs.memo)
	fs.decide(ctx, n, e, number, final)
}

// decide is judge for a commit of which the number is known to be in the entry.
func (fs *FS) decide(ctx context.Context, n *node, e storage.Entry, number uint64, final bool) {
	var done *stage // nothing is left of it
	var told bool   // the next mounter does not look for its file
	n.mu.Lock()
	at := slices.IndexFunc(n.mu.sent, func(x *sent) bool { return x.number == number })
	var unused []storage.ChunkID
	switch {
	case at >= 0:
		told = n.mu.sent[at].noted
		unused, done = n.landedLocked(at)
		unused = slices.DeleteFunc(unused, func(id storage.ChunkID) bool {
			return slices.ContainsFunc(e.Chunks, func(c storage.Chunk) bool { return c.ID == id })
		})
		n.recountLocked()
		end := record{kind: recLanded, id: n.id, a: number, b: done.spent()}
		if n.mu.stage == nil && n.mu.pending.empty() {
			end = record{kind: recClean, id: n.id, a: done.spent()}
		}
		stands := fs.memo.note(end)
		told = told || stands
		if !stands { // the next mounter may need them to commit the same again
			unused = nil
		}
	case final:
		for _, x := range n.mu.sent {
			unused = append(unused, x.made...)
			fs.memo.note(record{kind: recRefused, id: n.id, a: x.number})
		}
		n.mu.sent = nil
	}
	n.mu.Unlock()
	if done != nil {
		done.close(fs, n.id, told)
	}
	fs.freeChunks(ctx, n, unused)
}

// landedLocked: the commit was carried out. What is left to commit is what was
// written since. It returns the chunks that may be in nobody's use, and the stage
// when nothing is left of it.
func (n *node) landedLocked(at int) (unused []storage.ChunkID, done *stage) {
	x := n.mu.sent[at]
	for i, y := range n.mu.sent {
		if i != at {
			unused = append(unused, y.made...)
		}
	}
	n.mu.sent, n.mu.pending = nil, x.pending
	s := n.mu.stage
	if s == nil {
		return unused, nil
	}
	unused = append(append(unused, ids(s.laid)...), s.spare...)
	s.base, s.size, s.dirty, s.laid, s.spare = x.since.base, x.since.size, x.since.dirty, nil, nil
	if s.empty() {
		n.mu.stage = nil
		return unused, s
	}
	return unused, nil
}

// inDoubt reports whether the answer of a commit is not known.
func (n *node) inDoubt() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.mu.sent) > 0
}

// legacy is what the mounter before has left of a file, by a journal whose last
// commit was number last of writer. It stays what it is when the next mounter ends
// before it has seen the entry: a new session leaves numbers out, and the commit that
// the power took from the journal is not above those (unseen).
type legacy struct{ writer, last uint64 }

func legacyRecord(id uint64, l *legacy) record {
	return record{kind: recWriter, id: id, a: l.writer, b: l.last}
}

// claimLocked: when the entry has a commit that the journal does not know, a power cut
// has taken the end of the journal. That commit has brought all that the journal knew
// before, and nothing was written since: the entry is learnt first. It is noted as one
// that was sent, so that the next mounter tells what is written from now on apart.
func (n *node) claimLocked(e storage.Entry, m *memo) {
	l := n.mu.legacy
	n.mu.legacy = nil
	if l == nil {
		return
	}
	if number := e.Committed(l.writer); number > l.last {
		x := &sent{number: number, since: stage{base: uncut}}
		x.noted = m.note(commitRecord(n.id, x))
		n.mu.sent = append(n.mu.sent, x)
	}
}

// wroteLocked, cutLocked and changedLocked tell commits whose answer is not known
// what has been done since.
func (n *node) wroteLocked(d span) {
	for _, x := range n.mu.sent {
		x.since.mark(d)
	}
}

func (n *node) cutLocked(size int64) {
	for _, x := range n.mu.sent {
		x.since.truncate(size)
	}
}

func (n *node) changedLocked(change patch) {
	for _, x := range n.mu.sent {
		x.pending.add(change)
	}
}

// freeChunks gives back what nobody shows.
func (fs *FS) freeChunks(ctx context.Context, n *node, unused []storage.ChunkID) {
	if len(unused) == 0 {
		return
	}
	if err := fs.vol.Chunks.Delete(context.WithoutCancel(ctx), unused); err != nil {
		fs.log.Warn("unused chunks stay", "op", "commit", "node", n.id, "err", err)
	}
}

// applySent replays what was noted of commits.
func (r *replayed) applySent(n *node, rec record) error {
	at := slices.IndexFunc(n.mu.sent, func(x *sent) bool { return x.number == rec.a })
	switch rec.kind { //nolint:exhaustive // those of commits
	case recCommit:
		var d sentRecord
		if err := json.Unmarshal(rec.data, &d); err != nil {
			return storage.Errorf(storage.Corrupt, "a commit: %w", err)
		}
		x := &sent{number: rec.a, noted: true, made: d.Made, since: stage{base: uncut}}
		if d.Since {
			x.since.base, x.since.size, x.pending = d.Base, d.Size, d.Pending
			for _, r := range d.Dirty {
				x.since.mark(span{r[0], r[1]})
			}
		}
		r.fs.writer.last.Store(max(r.fs.writer.last.Load(), rec.a))
		if last, ok := r.unseen[rec.id]; ok && rec.a > last { // the entry was seen
			delete(r.unseen, rec.id)
		}
		if at >= 0 { // told by a compaction before: all that was done since follows once more
			n.mu.sent[at] = x
		} else if n.mu.stage != nil || !n.mu.pending.empty() {
			n.mu.sent = append(n.mu.sent, x)
		}
	case recRefused:
		if at >= 0 {
			n.mu.sent = slices.Delete(n.mu.sent, at, at+1)
		}
	case recLanded:
		r.ended(rec.id, rec.b)
		if at >= 0 {
			if _, done := n.landedLocked(at); done != nil {
				r.forget(n.id, done)
			}
		}
	}
	return nil
}

// applyLaid replays that a range is a chunk in the store. A compaction may have
// told of it before: then what came before it is replayed over it, be it a write of
// the same range or a truncation, and it is laid again as it was.
func (r *replayed) applyLaid(s *stage, rec record) error {
	var c storage.Chunk
	if err := json.Unmarshal(rec.data, &c); err != nil {
		return storage.Errorf(storage.Corrupt, "a chunk of a stage: %w", err)
	}
	s.laid = slices.DeleteFunc(s.laid, func(x storage.Chunk) bool { return x.ID == c.ID })
	s.spare = slices.DeleteFunc(s.spare, func(x storage.ChunkID) bool { return x == c.ID })
	s.lay(c)
	return nil
}
