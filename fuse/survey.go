package fuse

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// A survey sums up what all names of a volume hold, while they change. It keeps the
// share of each file that it has seen, by a hash, so that a change that is told of
// meanwhile takes the place of what was seen or is going to be; that is 30 bytes
// for each file, as long as it lasts. Then the sum goes by differences again.
//
// What lost: the place in the order of names that the survey has come to, which
// tells whether a change is seen by it, but not for what changes at that very
// moment.

const (
	// surveyEvery is how often the sum is looked after, whatever happens.
	surveyEvery = 30 * time.Minute
	// surveySettles is how long after its end a survey is kept: what the stream tells
	// of by then may have happened before.
	surveySettles = 3 * time.Second
	// surveyPause is the least time between two, and after one that failed.
	surveyPause = time.Second
	// spoiledSurveys in a row are believed all the same: one who moves directories all
	// the time is not waited for.
	spoiledSurveys = 5
)

// survey is one of them. It is under room.mu.
type survey struct {
	seed maphash.Seed
	held map[uint64]int64
	// told are those that have changed since it began.
	told map[uint64]struct{}
	sum  int64
	// done: all names were seen. spoiled: something has happened that it cannot tell.
	done, spoiled bool
}

func newSurvey() *survey {
	return &survey{seed: maphash.MakeSeed(), held: map[uint64]int64{}, told: map[uint64]struct{}{}}
}

func (s *survey) path(p storage.Path) uint64 { return maphash.String(s.seed, "path "+string(p)) }
func (s *survey) link(id string) uint64      { return maphash.String(s.seed, "link "+id) }

// found takes what a list of names had.
func (s *survey) found(p storage.Path, have storage.Share) {
	key := s.path(p)
	if _, told := s.told[key]; told || have.Held == 0 {
		return
	}
	if have.LinkID != "" {
		key = s.link(have.LinkID)
	}
	if _, told := s.told[key]; !told {
		s.put(key, have.Held)
	}
}

// put gives a file its share.
func (s *survey) put(key uint64, held int64) {
	s.sum += held - s.held[key]
	if held == 0 {
		delete(s.held, key)
	} else {
		s.held[key] = held
	}
}

// set is put for what was told.
func (s *survey) set(key uint64, held int64) {
	s.put(key, held)
	if !s.done {
		s.told[key] = struct{}{}
	}
}

func (s *survey) changed(p storage.Path, was, now *storage.Share) {
	at := s.path(p)
	switch {
	case now == nil:
		s.set(at, 0)
	case now.LinkID == "":
		s.set(at, now.Held)
	default:
		s.set(at, 0)
		s.set(s.link(now.LinkID), now.Held)
	}
	if was != nil && was.LinkID != "" && was.Last() && (now == nil || now.LinkID != was.LinkID) {
		s.set(s.link(was.LinkID), 0)
	}
}

func (s *survey) moved(from, to storage.Path, source, target *storage.Share) {
	s.changed(to, target, source)
	s.set(s.path(from), 0)
}

// countRoom surveys the volume when the stream of changes begins, when something
// may have been missed, and now and then, until ctx ends.
func (fs *FS) countRoom(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-fs.room.again:
		case <-time.After(surveyEvery):
		}
		for spoiled := 0; fs.watched.Load(); {
			err := storage.Survey(ctx, fs.vol.Files, fs.room.begin().found)
			if ctx.Err() != nil {
				return
			}
			done := false
			if err != nil {
				fs.room.end()
				fs.log.Warn("the volume could not be surveyed; what it takes may be outdated", "op", "survey", "err", err)
			} else if done = fs.room.finish(spoiled >= spoiledSurveys); !done {
				spoiled++
			}
			pause := surveyPause
			if done {
				pause = surveySettles
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if done {
				fs.room.end()
				break
			}
		}
	}
}

// surveying feeds the survey of a room.
type surveying struct {
	room *room
	of   *survey
}

func (s surveying) found(p storage.Path, have storage.Share) {
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.of.found(p, have)
}

// begin begins a survey.
func (r *room) begin() surveying {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.survey = newSurvey()
	return surveying{r, r.mu.survey}
}

// finish takes the sum of a survey that has seen all names. It reports false when
// the survey is not to be believed.
func (r *room) finish(anyway bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.survey
	if s.spoiled && !anyway {
		r.mu.survey = nil
		return false
	}
	s.done, s.told = true, nil
	r.surveyedLocked(s.sum)
	return true
}

// end goes by differences from now on.
func (r *room) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.survey = nil
}

// movedTree says that a directory was moved by us, and what is in it with it: a
// survey knows its files by paths.
func (r *room) movedTree() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.mu.survey; s != nil && s.done {
		r.mu.survey = nil
	} else if s != nil {
		s.spoiled = true
	}
}
