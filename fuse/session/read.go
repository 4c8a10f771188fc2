package session

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// This file is the read loop: one goroutine for each session that waits in Go's
// poller, and one for each request. A thread for each reader was the
// alternative: a node with a hundred volumes would have hundreds, and a request
// that waits for the network would need one more each time.
//
// The kernel gives out whatever is next, so a reader that cannot read keeps
// INTERRUPT and FORGET waiting too. Therefore the reader never runs a handler
// that may wait, and gives a buffer away only when it has another one. It waits
// in one case: half of the pool is filled with this session's large writes. The
// risk accepted: an INTERRUPT then waits until one of them is answered.
//
// What it costs: a goroutine for each request wakes a second thread. On two busy
// cores a 4 KiB write took 40 to 70 us, and 19 us when the reader did it itself; of
// 1 MiB the difference is lost in the copy. Doing short requests in the reader,
// with somebody watching that they are short, is the next step.

// Opcodes that the loop itself must know.
const (
	opForget      = 2
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
	buf, err := s.buffers.take()
	if err != nil {
		return err
	}
	defer func() { s.buffers.give(buf) }()
	for ctx.Err() == nil {
		n, err := s.next(buf)
		switch {
		case err == nil && n >= inHeaderSize:
		case err == nil:
			return fmt.Errorf("read a request: %d bytes", n)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // the request was taken back
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		default:
			return fmt.Errorf("read a request: %w", err)
		}
		switch native.Uint32(buf[opcodeAt:]) {
		case opForget, opBatchForget, opInterrupt, opNotifyReply:
			// In order and at once: raw.Forget waits for nothing.
			s.serve(buf[:n])
			continue
		}
		if n <= copyLimit {
			in := s.heap.take(n)
			copy(*in, buf[:n])
			s.start(func() {
				s.serve((*in)[:n])
				s.heap.give(in)
			}, (*in)[:n])
			continue
		}
		full := buf
		if err := s.takeRoom(ctx); err != nil {
			// The request stays unanswered, for a successor.
			return err
		}
		if buf, err = s.buffers.take(); err != nil {
			buf = full
			s.leaveRoom()
			s.serve(buf[:n]) // no memory for another one: slowly, then
			continue
		}
		s.start(func() {
			s.serve(full[:n])
			s.buffers.give(full)
			s.leaveRoom()
		}, full[:n])
	}
	return context.Cause(ctx)
}

// next reads one request, waiting in the poller.
func (s *Session) next(buf []byte) (n int, err error) {
	poll := s.conn.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), buf)
		return !errors.Is(err, unix.EAGAIN)
	})
	if poll != nil && (err == nil || errors.Is(err, unix.EAGAIN)) {
		// The poller reports the end of the session as an error of its own; what
		// it means, the descriptor says.
		if n, err = unix.Read(s.fd, buf); errors.Is(err, unix.EAGAIN) {
			return 0, poll
		}
	}
	return n, err
}

// start runs a handler for the request.
func (s *Session) start(handler func(), request []byte) {
	unique := native.Uint64(request[uniqueAt:])
	s.mu.Lock()
	s.mu.inflight[unique] = struct{}{}
	s.mu.Unlock()
	s.handlers.Go(func() {
		handler()
		s.mu.Lock()
		delete(s.mu.inflight, unique)
		s.mu.Unlock()
	})
}

// takeRoom asks for the right to hold one more large buffer.
func (s *Session) takeRoom(ctx context.Context) error {
	select {
	case s.share <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case s.buffers.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-s.share
		return context.Cause(ctx)
	}
}

func (s *Session) leaveRoom() {
	<-s.buffers.room
	<-s.share
}
