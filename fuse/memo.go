package fuse

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/holdfast-csi/holdfast/cache/journal"
)

const (
	// replayBit marks the unique of a request that a mounter before may have
	// carried out (FUSE_UNIQUE_RESEND of linux/fuse.h).
	replayBit = uint64(1) << 63
	// intentsKept is how many operations are remembered: far more than the kernel
	// lets wait (max_background and one for each thread of an application).
	intentsKept = 8192
)

// intent is what an operation that must not run twice was about to do.
type intent struct {
	// inode that is made, moved or removed.
	inode uint64
	// outcome of a change of names, once it is known.
	outcome outcome
}

// memo writes down what the next mounter has to know, and remembers what the
// last one was about to do. Without a journal it does nothing.
type memo struct {
	log     *slog.Logger
	journal *journal.Log
	// broken is set by the first record that could not be written.
	broken atomic.Bool

	mu      sync.Mutex
	intents map[uint64]intent
	order   []uint64
}

func newMemo(log *slog.Logger) *memo { return &memo{log: log, intents: map[uint64]intent{}} }

// write adds a record; the caller's own promise depends on it.
func (m *memo) write(r record) error {
	if m.journal == nil {
		return nil
	}
	return m.journal.Append(r.bytes())
}

// note adds a record whose loss only a restart would feel.
func (m *memo) note(r record) {
	if err := m.write(r); err != nil && !m.broken.Swap(true) {
		m.log.Error("the journal cannot be written: a restart of the mounter will lose open files", "op", "journal", "err", err)
	}
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
	if _, ok := m.intents[unique]; !ok {
		m.order = append(m.order, unique)
		if len(m.order) > intentsKept {
			delete(m.intents, m.order[0])
			m.order = m.order[1:]
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
	m.intents, m.order = map[uint64]intent{}, nil
}

// live emits the intents, for a compaction.
func (m *memo) live(emit func(record) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.order {
		r := record{kind: recIntent, unique: u, a: m.intents[u].inode}
		if o := m.intents[u].outcome; o != unsettled {
			r.kind, r.b = recRedone, uint64(o)
		}
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}
