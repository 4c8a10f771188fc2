package cache

import (
	"context"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file sees who reads on and on, and how far ahead of such a reader the
// cache should be. A reader is known by the chunk that it is at, and by where in
// the file it reads on; when it comes to the next chunk of the layout, it is the
// same one still. So the window reaches over the ends of chunks, and two readers
// of one file have two windows. Having the reader's handle pass through the
// contract lost: every coat of the data path would carry what one of them wants,
// and the kernel reads ahead for several handles at once.
//
// The window grows while the reader still has to wait, so a fast network and a
// slow reader have a small one.

const (
	firstWindow = 2 * BlockSize
	maxWindow   = 16 << 20
	// largeRead: who asks for that much at once gets whole blocks, however random.
	largeRead = 128 << 10
	// slack is how far the kernel's requests of one reader overtake each other.
	slack = BlockSize
	// streamCount readers are told apart. Random reads come and go in the places
	// of those that have not read on yet.
	streamCount = 64
	// idleAfter so many reads of others, a reader's place may be taken.
	idleAfter = 1024
)

// stream is one supposed reader. Offsets are those of the file.
type stream struct {
	view   *chunks
	chunk  storage.ChunkID // that it is at
	next   int64           // where it reads on
	window int64           // zero: it has not read on yet
	asked  int64           // read ahead up to here
	used   uint64
	serial uint64
	ctx    context.Context
	giveUp context.CancelFunc
}

// streams finds the stream of a read.
type streams struct {
	max func() int64 // how far ahead one reader may be

	mu struct {
		sync.Mutex
		all  [streamCount]stream
		used int
		now  uint64
	}
}

// observed is what a read should do: fetch whole blocks, and read ahead.
type observed struct {
	whole    bool
	from, to int64
	ctx      context.Context
	i        int
	serial   uint64
}

// observe is told of each read: n bytes from off on of the chunk of extent i.
func (s *streams) observe(v *chunks, layout []storage.Extent, i int, off int64, n int) observed {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.now++
	ch := layout[i].Chunk
	at := ch.Offset + off
	end := at + int64(n)
	for j := range s.mu.all[:s.mu.used] {
		x := &s.mu.all[j]
		if x.view != v {
			continue
		}
		comes := i > 0 && x.chunk == layout[i-1].Chunk.ID
		if x.chunk != ch.ID && !comes {
			continue
		}
		if x.window == 0 && at == x.next {
			x.window, x.asked = firstWindow, end
		} else if x.window == 0 || at < x.next-slack || at > x.next+slack {
			continue
		}
		x.chunk, x.next, x.used = ch.ID, max(x.next, end), s.mu.now
		return s.aheadLocked(j, layout)
	}
	j := s.placeLocked()
	x := &s.mu.all[j]
	if x.giveUp != nil {
		x.giveUp()
	}
	*x = stream{view: v, chunk: ch.ID, next: end, asked: end, used: s.mu.now, serial: s.mu.now}
	return observed{i: j, serial: x.serial, whole: off == 0 || n >= largeRead}
}

func (s *streams) aheadLocked(j int, layout []storage.Extent) observed {
	x := &s.mu.all[j]
	o := observed{whole: true, i: j, serial: x.serial}
	from := max(x.asked, x.next)
	if to := min(x.next+min(x.window, s.max()), layout[len(layout)-1].End()); from < to {
		if x.ctx == nil {
			x.ctx, x.giveUp = context.WithCancel(context.Background())
		}
		o.from, o.to, o.ctx = from, to, x.ctx
	}
	return o
}

// placeLocked finds a place for a new stream: a free one, else that of the one
// that has waited longest among those that do not read on, else among all.
func (s *streams) placeLocked() int {
	if s.mu.used < streamCount {
		s.mu.used++
		return s.mu.used - 1
	}
	best, bestIdle := 0, false
	for i := range s.mu.all {
		x := &s.mu.all[i]
		idle := x.window == 0 || s.mu.now-x.used > idleAfter
		if i == 0 || idle && !bestIdle || idle == bestIdle && x.used < s.mu.all[best].used {
			best, bestIdle = i, idle
		}
	}
	return best
}

// asked tells how far the read-ahead of o has come.
func (s *streams) asked(o observed, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := &s.mu.all[o.i]; x.serial == o.serial {
		x.asked = max(x.asked, to)
	}
}

// waited tells that the reader of o was not served at once: more ahead next time.
func (s *streams) waited(o observed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := &s.mu.all[o.i]; x.serial == o.serial && x.window > 0 {
		x.window = min(2*x.window, s.max())
	}
}

// close gives up what was read ahead.
func (s *streams) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.mu.all {
		if x := &s.mu.all[i]; x.giveUp != nil {
			x.giveUp()
		}
	}
}
