package fuse

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// An answer of the store tells what was so when it was asked for. By the time it
// is here we may have changed the same name or file ourselves, or have been told
// that somebody else has: taking the answer then would undo what is known, and a
// name that was just made would be gone, a file that was just written would have
// its old size. So every question is registered while it is under way, every
// change marks the questions that it outdates, and an outdated answer is not
// taken: the question is asked again.
//
// Times would do the same with a stamp on every name that was ever changed; this
// way nothing is kept when no question is open.

// ask is a question under way. Its fields are under table.mu.
type ask struct {
	places map[place]struct{}
	nodes  map[*node]struct{}
	// all: nothing is certain any more.
	all bool
}

// nameChanged marks a name, and fileChanged a file. A directory that is held open
// is a question for as long: when many have changed, none is believed, and nothing
// is kept.
func (a *ask) nameChanged(at place) {
	if a.tooMany() {
		return
	}
	if a.places == nil {
		a.places = map[place]struct{}{}
	}
	a.places[at] = struct{}{}
}

func (a *ask) fileChanged(n *node) {
	if a.tooMany() {
		return
	}
	if a.nodes == nil {
		a.nodes = map[*node]struct{}{}
	}
	a.nodes[n] = struct{}{}
}

func (a *ask) tooMany() bool {
	if len(a.places)+len(a.nodes) >= maxMarks {
		a.all = true
	}
	if a.all {
		a.places, a.nodes = nil, nil
	}
	return a.all
}

const (
	// maxMarks of one question.
	maxMarks = 4096
	// maxOutdated is how often a question is asked again, over some seconds. Others
	// who change one file all the time must not keep it from those who look at it,
	// and what the stream tells comes in bursts: after a take-over, all at once.
	maxOutdated = 100
	// longestPause between two of them.
	longestPause = 50 * time.Millisecond
)

// pause waits before a question is asked for the so manyth time: not at all at
// first, since mostly it was one change.
func pause(ctx context.Context, try int) error {
	const atOnce = 3
	if try < atOnce {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(time.Millisecond<<min(try-atOnce, 10), longestPause)):
		return nil
	}
}

// asks are the questions that are open.
type asks struct {
	open map[*ask]struct{}
	// outdated counts the answers that were not taken.
	outdated atomic.Int64
}

// ask registers a question. It is to be ended by answered.
func (t *table) ask() *ask {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &ask{}
	t.asks.open[a] = struct{}{}
	return a
}

// answered ends a question: what was learnt from it is learnt.
func (t *table) answered(a *ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.asks.open, a)
}

// outdatesNameLocked marks the open questions after a name.
func (t *table) outdatesNameLocked(at place) {
	for a := range t.asks.open {
		a.nameChanged(at)
	}
}

// outdatesLocked marks the open questions after a file.
func (t *table) outdatesLocked(n *node) {
	for a := range t.asks.open {
		a.fileChanged(n)
	}
}

// outdates marks the open questions after a name, and after the file that it
// stands for.
func (t *table) outdates(dir *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := place{dir, name}
	t.outdatesNameLocked(at)
	if n := t.byName[at]; n != nil {
		t.outdatesLocked(n)
	}
}

// outdatesAll marks all open questions.
func (t *table) outdatesAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a := range t.asks.open {
		a.all = true
	}
}

// namedLocked reports whether the answer still tells of a name, and counts when
// it does not. a is nil for what is no answer.
func (t *table) namedLocked(a *ask, at place) bool {
	if a == nil {
		return true
	}
	if _, changed := a.places[at]; !changed && !a.all {
		return true
	}
	t.asks.outdated.Add(1)
	return false
}

// hear learns e of n from an answer, unless it is outdated or a commit compares
// with what it began from.
func (t *table) hear(a *ask, n *node, e storage.Entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, changed := a.nodes[n]; changed || a.all {
		t.asks.outdated.Add(1)
		return false
	}
	if !n.dirty() || !n.loaded.Load() {
		n.learn(e, t.memo)
	}
	return true
}

// retake is hear for who cannot go on with what n was before, be it changed here
// or not: a commit finds that its condition fails.
func (t *table) retake(a *ask, n *node, e storage.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, changed := a.nodes[n]; !changed && !a.all {
		n.learn(e, t.memo)
	}
}

// did learns what n has become by our own doing.
func (t *table) did(n *node, e storage.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outdatesLocked(n)
	n.learn(e, t.memo)
}

// doubt makes the next look at n go to the store.
func (t *table) doubt(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outdatesLocked(n)
	n.doubt()
}

// unbindHeard takes a name away that the store was said not to have, unless the
// answer is outdated.
func (t *table) unbindHeard(a *ask, dir *node, name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := place{dir, name}
	if !t.namedLocked(a, at) {
		return false
	}
	t.unbindLocked(at)
	return true
}
