package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// This file is the read loop: one goroutine for each session that waits in Go's
// poller, and one for each request. A thread for each reader was the
// alternative: a node with a hundred volumes would have hundreds, and a request
// that waits for the network would need one more each time.
//
// The kernel gives out whatever is next, so a reader that cannot read keeps
// INTERRUPT and FORGET waiting too. Therefore the reader never runs a handler
// that may wait, and reads into a slot that no handler can have. It waits
// in one case: half of the pool is filled with this session's large writes. The
// risk accepted: an INTERRUPT then waits until one of them is answered.
//
// What it costs: a goroutine for each request wakes a second thread. On two busy
// cores a 4 KiB write took 40 to 70 us, and 19 us when the reader did it itself; of
// 1 MiB the difference is lost in the copy. What never waits the reader does itself
// (prompt.go).

// Opcodes that the loop itself must know.
const (
	opForget      = 2
	opGetAttr     = 3
	opGetXattr    = 22
	opListXattr   = 23
	opRead        = 15
	opReadDir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opNotifyReply = 41
	opBatchForget = 42
	opReadDirPlus = 44
)

// read serves until the session is unmounted (nil) or ctx ends.
func (s *Session) read(ctx context.Context) error {
	defer s.putSpare()
	for ctx.Err() == nil {
		n, err := s.next(ctx)
		switch {
		case err == nil && n >= inHeaderSize:
		case err == nil:
			return fmt.Errorf("read a request: %d bytes", n)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			s.putSpare() // the request was taken back
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			return fmt.Errorf("read a request: %w", err)
		}
		op := s.spare.opcode()
		s.at("read", op)
		switch op {
		case opForget, opBatchForget, opNotifyReply:
			// In order and at once: raw.Forget waits for nothing.
			s.forget(s.spare, n)
			continue
		case opGetAttr:
			if s.prompt(n) {
				continue
			}
		}
		sl, err := s.move(n)
		if err != nil {
			s.log.Debug("a small request stays in a large slot", "err", err)
		}
		moved := !sl.none()
		if !moved {
			sl, s.spare = s.spare, slot{}
		}
		switch {
		case op == opInterrupt && n >= inHeaderSize+8:
			s.interrupt(sl)
			continue
		case moved:
			s.start(sl, n, nil)
			continue
		}
		if err := s.takeRoom(ctx); err != nil {
			// The request stays unanswered, for a successor.
			s.slots.leave(sl)
			return err
		}
		s.start(sl, n, nil)
	}
	return context.Cause(ctx)
}

// next reads one request into s.spare, waiting in the poller without a slot.
func (s *Session) next(ctx context.Context) (n int, err error) {
	poll := s.conn.Read(func(fd uintptr) bool {
		if s.spare.none() {
			if s.spare, err = s.slots.takeLarge(ctx, s.key); err != nil {
				return true
			}
		}
		if n, err = unix.Read(int(fd), s.spare.mem); !errors.Is(err, unix.EAGAIN) {
			return true
		}
		s.putSpare()
		return false
	})
	if poll != nil && (err == nil || errors.Is(err, unix.EAGAIN)) {
		// The poller reports the end of the session as an error of its own; what
		// it means, the descriptor says.
		if s.spare.none() {
			if s.spare, err = s.slots.takeLarge(ctx, s.key); err != nil {
				return 0, err
			}
		}
		if n, err = unix.Read(s.fd, s.spare.mem); errors.Is(err, unix.EAGAIN) {
			return 0, poll
		}
	}
	return n, err
}

// putSpare gives the reader's slot back, empty.
func (s *Session) putSpare() {
	if !s.spare.none() {
		s.slots.give(s.spare)
		s.spare = slot{}
	}
}

// move takes the request of n bytes out of the large slot into one of its size,
// none when there is none. At each moment a successor finds it in one of them,
// or in both.
func (s *Session) move(n int) (slot, error) {
	for class := range large {
		if n > s.slots.geo[class].bytes {
			continue
		}
		sl, ok, err := s.slots.take(class, s.key)
		if err != nil {
			return slot{}, err
		}
		if ok {
			copy(sl.mem[4:n], s.spare.mem[4:n])
			sl.setLength(n)
			s.at("moved", sl.opcode())
			s.spare.setLength(0)
			return sl, nil
		}
	}
	return slot{}, nil
}

// start runs a handler for the request of n bytes in a slot, which is its own from
// now on. What a predecessor left, and may have run, is one of a group; everything
// else waits until the group is done.
func (s *Session) start(sl slot, n int, group *sync.WaitGroup) {
	op, unique := sl.opcode(), sl.unique()
	if group != nil {
		unique |= uniqueAgain
	}
	f := &flight{}
	if answerSize(op, sl.request(n)) > middleAnswer {
		f.wake = make(chan struct{}, 1)
	}
	s.mu.Lock()
	s.mu.inflight[unique] = f
	s.mu.Unlock()
	s.hands.do(func() {
		if group != nil {
			defer group.Done()
		} else {
			select {
			case <-s.gate:
			case <-s.void:
			}
		}
		s.at("handle", op)
		answered := s.serve(sl.request(n), group != nil, f)
		s.at("answered", op)
		done := s.slots.give
		if !answered {
			done = s.slots.leave
		}
		done(sl)
		s.mu.Lock()
		f.over = true
		delete(s.mu.inflight, unique)
		s.mu.Unlock()
		for _, sl := range f.interrupts {
			done(sl)
		}
		if sl.class == large && group == nil {
			s.leaveRoom()
		}
	})
}

// takeRoom asks for the right to hold one more large slot.
func (s *Session) takeRoom(ctx context.Context) error {
	select {
	case s.share <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case s.slots.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-s.share
		return context.Cause(ctx)
	}
}

func (s *Session) leaveRoom() {
	<-s.slots.room
	<-s.share
}
