package session

import "time"

// This file tells handlers that their request is no longer wanted. An INTERRUPT
// keeps its slot as long as its request does, so that a successor, which runs the
// request again, hears of it too.

// Interrupter is a file system that hears of an interrupt by a call, too: to wait
// for its cancel channel would cost it a goroutine for each request.
type Interrupter interface {
	// Interrupted is called once the request's channel is closed. The unique is
	// that which the file system was given. It must not wait.
	Interrupted(unique uint64)
}

// flight is a request that a handler has.
type flight struct {
	interrupts []slot
	over       bool
	// wake tells one that waits for room for a large answer; of one, nil for
	// others.
	wake chan struct{}
}

// interrupt takes over an INTERRUPT in a slot.
func (s *Session) interrupt(sl slot) {
	target := native.Uint64(sl.mem[inHeaderSize:])
	s.mu.Lock()
	f := s.mu.inflight[target]
	if f == nil {
		// What is run again go-fuse knows by another unique than the kernel.
		if f = s.mu.inflight[target|uniqueAgain]; f != nil {
			target |= uniqueAgain
		}
	}
	if f != nil {
		f.interrupts = append(f.interrupts, sl)
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	if f == nil {
		// It was answered. (To ask the kernel to say it again, EAGAIN, would be to
		// ask for ever if the request was lost.)
		s.slots.give(sl)
		return
	}
	if s.cancel(target) {
		return
	}
	// Its handler has not begun.
	s.hands.do(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			s.mu.Lock()
			over := f.over
			s.mu.Unlock()
			if over || s.cancel(target) {
				return
			}
		}
	})
}

// cancel tells go-fuse, by the unique that it knows, and reports whether it has
// such a request. Its own way of doing so is not exported.
func (s *Session) cancel(unique uint64) bool {
	var in [inHeaderSize + 8]byte
	var out [outHeaderSize]byte
	native.PutUint32(in[0:], uint32(len(in)))
	native.PutUint32(in[opcodeAt:], opInterrupt)
	native.PutUint64(in[inHeaderSize:], unique)
	n, _ := s.server.HandleRequest([][]byte{in[:]}, [][]byte{out[:]})
	if n == 0 && s.interrupter != nil {
		s.interrupter.Interrupted(unique)
	}
	return n == 0
}

// cancelAll tells go-fuse that every request in flight was interrupted.
func (s *Session) cancelAll() {
	s.mu.Lock()
	uniques := make([]uint64, 0, len(s.mu.inflight))
	for u := range s.mu.inflight {
		uniques = append(uniques, u)
	}
	s.mu.Unlock()
	for _, u := range uniques {
		s.cancel(u)
	}
}
