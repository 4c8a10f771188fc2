package fuse

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-csi/holdfast/cache/journal"
)

const (
	// replayBit marks the unique of a request that a mounter before may have
	// carried out (FUSE_UNIQUE_RESEND of linux/fuse.h).
	replayBit = uint64(1) << 63
	// intentsKept is how many operations are remembered, of those that wait for the
	// store and of those that do not: far more than the kernel lets wait
	// (max_background and one for each thread of an application).
	intentsKept = 8192
)

// recordLog is what is needed of a journal; the tests have one whose disk fails.
type recordLog interface {
	Append(record []byte) error
	AppendHalf(record []byte) error
	AppendReserved(record []byte) error
	Compact(live func(emit func(record []byte) error) error) error
	Size() int64
	Sync() error
	Close() error
}

var _ recordLog = (*journal.Log)(nil)

// share is how much of the journal's reserve a record may use on a full disk.
type share uint8

const (
	// starts something: refused, so that the caller gets ENOSPC, and never while the
	// journal has a hole, since it may depend on what is missing.
	starts share = iota + 1
	// follows what the kernel or the store has done already: names and counts. Half
	// of the reserve, since looking a tree up makes a flood of them.
	follows
	// ends what takes room on the disk, or says what became of it: all of the reserve.
	ends
)

// shares of all kinds; a test demands that none is missing.
var shares = map[recordKind]share{
	recStage:  starts,
	recWrite:  starts,
	recSpill:  starts,
	recSpan:   starts,
	recCut:    starts,
	recPatch:  starts,
	recKept:   starts,
	recIntent: starts,
	recWriter: starts,
	recHolder: starts,
	recRedo:   starts,
	recMerge:  starts,
	recLaid:   starts, // without it the commit brings the bytes
	recPage:   starts,

	recName:    follows,
	recUnname:  follows,
	recCounts:  follows,
	recGone:    follows,
	recSeen:    follows,
	recRewound: follows,

	recClean:   ends,
	recCommit:  ends, // without it the end could not be told
	recLanded:  ends,
	recRefused: ends,
	recRedone:  ends,
	recUnkept:  ends,
	recMerged:  ends,
}

// intent is what an operation that must not run twice was about to do.
type intent struct {
	// inode that is made, moved or removed.
	inode uint64
	// outcome of a change of names, once it is known.
	outcome outcome
	// spared is the file that would have lost its last name while it is open, when a
	// change of names was settled as not made.
	spared *spared
	// brief: it waits for no answer of the store, as a count or an append. There may
	// be any number of those while one of the others waits.
	brief bool
}

// memo writes down what the next mounter has to know, and remembers what the
// last one was about to do. Without a journal it does nothing.
type memo struct {
	log     *slog.Logger
	journal recordLog
	// hole is set while a record is missing in the journal: why it was refused. The
	// next compaction that succeeds fills it.
	hole atomic.Pointer[error]

	mu      sync.Mutex
	intents map[uint64]intent
	// order and briefs are the uniques of intents, the oldest first.
	order, briefs []uint64
}

func newMemo(log *slog.Logger) *memo { return &memo{log: log, intents: map[uint64]intent{}} }

// write adds a record; the caller's own promise depends on it.
func (m *memo) write(r record) error {
	if m.journal == nil {
		return nil
	}
	switch shares[r.kind] {
	case ends:
		return m.journal.AppendReserved(r.bytes())
	case follows:
		return m.journal.AppendHalf(r.bytes())
	case starts:
	}
	if hole := m.hole.Load(); hole != nil {
		return *hole
	}
	return m.journal.Append(r.bytes())
}

// note adds a record of what has happened already, and reports whether it stands.
// The next mounter misses one that does not: until a compaction has written all
// anew, nothing is begun that this would do harm to.
func (m *memo) note(r record) bool {
	err := m.write(r)
	if err == nil {
		return true
	}
	m.missed(err)
	return false
}

// flush returns when all that was written down is on the node's disk. When it cannot
// be, that is a hole: the journal is written anew before anything is promised again.
func (m *memo) flush() error {
	err := m.journal.Sync()
	if err != nil {
		m.missed(err)
	}
	return err
}

// missed makes a hole.
func (m *memo) missed(err error) {
	if m.hole.Swap(&err) == nil {
		m.log.Error("the journal cannot be written: changes are refused until it can", "op", "journal", "err", err)
	}
}

// compact writes the journal anew, and so fills its hole.
func (m *memo) compact(live func(emit func([]byte) error) error) error {
	hole := m.hole.Load()
	if err := m.journal.Compact(live); err != nil {
		return err
	}
	if hole != nil && m.hole.CompareAndSwap(hole, nil) { // else there is a new one
		m.log.Info("the journal is complete again", "op", "journal")
	}
	return nil
}

// intend writes down what a request is about to do to an inode.
func (m *memo) intend(unique, inode uint64) error {
	m.remember(unique, intent{inode: inode})
	return m.write(record{kind: recIntent, unique: unique &^ replayBit, a: inode})
}

func (m *memo) remember(unique uint64, i intent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	unique &^= replayBit
	if was, ok := m.intents[unique]; ok {
		i.brief = was.brief
	} else {
		order := &m.order
		if i.brief {
			order = &m.briefs
		}
		*order = append(*order, unique)
		if len(*order) > intentsKept {
			delete(m.intents, (*order)[0])
			*order = (*order)[1:]
		}
	}
	m.intents[unique] = i
}

// before returns what an earlier mounter was about to do for the same request.
func (m *memo) before(unique uint64) (intent, bool) {
	if unique&replayBit == 0 {
		return intent{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.intents[unique&^replayBit]
	return i, ok
}

// forgetIntents: a new kernel session counts its requests anew.
func (m *memo) forgetIntents() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.intents, m.order, m.briefs = map[uint64]intent{}, nil, nil
}

// live emits the intents, for a compaction.
func (m *memo) live(emit func(record) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range slices.Concat(m.order, m.briefs) {
		r := record{kind: recIntent, unique: u, a: m.intents[u].inode}
		if m.intents[u].brief {
			r.b = 1
		}
		if o := m.intents[u].outcome; o != unsettled {
			r.kind, r.b = recRedone, uint64(o)
		}
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}
