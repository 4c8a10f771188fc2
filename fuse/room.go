package fuse

import (
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// The size of a volume is a hard limit: write(2) gets ENOSPC before it is
// acknowledged. What the volume takes is kept as a sum, so that a write costs an
// addition: what its entries hold (storage/held.go), and over that what this mount
// holds and has not committed. Our own changes are added with their answer
// (counted.go), those of others as the stream tells of them, and the sum is begun by
// a survey of all names (survey.go), anew whenever something may have been missed.
//
// What lost: asking the master, whose figure is a minute old and counts what is
// deleted; a sum in the volume's record, which is one more write for each commit;
// and every file's share in memory, some hundred MB for a few million files.

// basis is what the sum stands on.
type basis uint8

const (
	// guess is nothing: the store has not been asked yet.
	guess basis = iota
	// assumed is what the store's own statistics say, until the survey is done.
	assumed
	// surveyed is a survey, here or by the mounter before.
	surveyed
)

// room is how much a volume has and takes. Its lock is the innermost.
type room struct {
	mu struct {
		sync.Mutex
		// size of the volume, as its record said at sizeAt.
		size   int64
		sizeAt time.Time
		// stored is what the entries hold, staged what is to come with the commits.
		stored, staged int64
		basis          basis
		// doubted: the stream has begun since the last survey. What it tells of may have
		// been counted already, since it begins a little before.
		doubted bool
		// survey is under way, or has just ended.
		survey *survey
		kept   *keptRoom
	}
	// known is closed when the sum is counted.
	known chan struct{}
	// again asks for a survey.
	again chan struct{}
}

func newRoom() *room {
	return &room{known: make(chan struct{}), again: make(chan struct{}, 1)}
}

// take sets n bytes aside for what is about to be staged. It is refused when they
// do not fit, as far as is known.
func (r *room) take(n int64) bool {
	if n <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.freeLocked() {
		return false
	}
	r.mu.staged += n
	return true
}

// takeSome sets as much of n aside as fits.
func (r *room) takeSome(n int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n = max(min(n, r.freeLocked()), 0)
	r.mu.staged += n
	return n
}

// fits reports whether n bytes more would.
func (r *room) fits(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return n <= r.freeLocked()
}

func (r *room) freeLocked() int64 {
	if r.mu.basis == guess || r.mu.sizeAt.IsZero() {
		return 0
	}
	return r.mu.size - r.mu.stored - r.mu.staged
}

// stage counts n bytes more, or less, that wait for a commit. It is not asked.
func (r *room) stage(n int64) {
	if n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.staged += n
}

// changed counts that was gave way to now at p. What we have done ourselves is
// counted at once; what others have done during a survey when it ends, since it
// sees some of it.
func (r *room) changed(p storage.Path, was, now *storage.Share, own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.survey != nil {
		r.mu.survey.changed(p, was, now)
	}
	r.countLocked(storage.Change(was, now), own)
}

// moved counts that source went from from to to, in the place of target, or nil.
func (r *room) moved(from, to storage.Path, source, target *storage.Share, own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.survey != nil {
		r.mu.survey.moved(from, to, source, target)
	}
	r.countLocked(storage.Change(target, nil), own)
}

// hear counts what somebody else has done.
func (r *room) hear(ev storage.Event) {
	switch {
	case ev.Old == nil && ev.New == nil:
	case ev.Old == nil:
		r.changed(ev.New.Path, nil, &ev.New.Share, false)
	case ev.New == nil:
		r.changed(ev.Old.Path, &ev.Old.Share, nil, false)
	case ev.Old.Path == ev.New.Path:
		r.changed(ev.New.Path, &ev.Old.Share, &ev.New.Share, false)
	default:
		r.moved(ev.Old.Path, ev.New.Path, &ev.New.Share, nil, false)
	}
}

func (r *room) countLocked(more int64, own bool) {
	was := r.mu.stored
	switch s := r.mu.survey; {
	case s != nil && s.done:
		r.mu.stored = s.sum
	case own, s == nil && !r.mu.doubted:
		r.mu.stored += more
	}
	if r.mu.stored != was {
		r.keepLocked()
	}
}

// missed says that a change may not have been counted: a survey is asked for, and
// the one under way is not believed.
func (r *room) missed() {
	r.mu.Lock()
	if r.mu.survey != nil {
		r.mu.survey.spoiled = true
	}
	r.mu.Unlock()
	r.ask()
}

// begun says that the stream of changes has.
func (r *room) begun() {
	r.mu.Lock()
	r.mu.doubted = true
	r.mu.Unlock()
	r.missed()
}

// ask asks for a survey.
func (r *room) ask() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// setSize keeps the size of the volume.
func (r *room) setSize(size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.size, r.mu.sizeAt = size, time.Now()
	r.keepLocked()
}

// assume takes the store's own figure for the sum, until it is counted.
func (r *room) assume(used int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.basis == guess {
		r.mu.basis, r.mu.stored = assumed, used
	}
}

// surveyedLocked takes a sum that was counted.
func (r *room) surveyedLocked(stored int64) {
	r.mu.stored, r.mu.doubted = stored, false
	if r.mu.basis != surveyed {
		r.mu.basis = surveyed
		close(r.known)
	}
	r.keepLocked()
}

// usage is what is shown of the volume.
func (r *room) usage() (u storage.Usage, b basis, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return storage.Usage{Used: max(r.mu.stored+r.mu.staged, 0), Capacity: r.mu.size}, r.mu.basis, r.mu.sizeAt
}
