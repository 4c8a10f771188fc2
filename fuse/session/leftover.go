package session

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file answers what a predecessor had read and not answered. It stands in
// the slots, and it is answered before a handler of anything new begins, so that a
// file system sees what may have run before what came later. New requests are
// read meanwhile, or nobody could interrupt what hangs.
//
// A predecessor may have been killed between an answer and the freeing of its
// slot. The application has gone on since, and to run such a request again would
// undo what it did: a truncate would cut off what was written behind it. So the
// kernel is asked first whether it still waits. A process may also have been
// killed while it moved a request between slots: then it stands in two, and is
// run once.
//
// Asking to have everything sent again (FUSE_NOTIFY_RESEND) was the alternative.
// It needs 6.9 and brings no FORGET. It is done only for what no slot of ours
// holds, and only when the slots are empty: a request that is sent again takes
// another unique, so the answer of a handler at work would be refused and the
// request run twice.

// uniqueAgain is the bit of a unique that says that the request may have run
// before (FUSE_UNIQUE_RESEND). The kernel sets it in what it sends again, we in
// what a predecessor left.
const uniqueAgain = 1 << 63

// inherit answers what was left. It returns while that goes on; s.gate is closed
// at its end.
func (s *Session) inherit(ctx context.Context) error {
	var running sync.WaitGroup
	damaged := false
	seen := make(map[uint64]bool)
	var interrupts []slot
	for _, sl := range s.slots.claim(s.key) {
		n := sl.length()
		if n < inHeaderSize || n > len(sl.mem) {
			s.log.Error("a request's slot is damaged", "length", n)
			damaged = true
			s.slots.give(sl)
			continue
		}
		unique := sl.unique()
		switch op := sl.opcode(); {
		case seen[unique]:
			s.slots.give(sl)
			continue
		case op == opInterrupt:
			interrupts = append(interrupts, sl)
		case op == opForget, op == opBatchForget, op == opNotifyReply:
			s.again(op)
			s.forget(sl, n)
			s.slots.give(sl)
		case !s.awaited(unique):
			s.slots.give(sl)
		default:
			s.again(op)
			running.Add(1)
			s.start(sl, n, &running)
		}
		seen[unique] = true
	}
	for _, sl := range interrupts {
		s.interrupt(sl)
	}
	s.hands.do(func() {
		running.Wait()
		close(s.gate)
	})
	if !s.resend && !damaged {
		return nil
	}
	select {
	case <-s.gate:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := s.askAgain()
	switch {
	case storage.Is(err, storage.Unsupported):
		s.log.Warn("requests that the last process had read are lost: the kernel is older than 6.9", "err", err)
		return nil
	case storage.Is(err, storage.Unavailable):
		return nil // the reader hears of the end
	}
	return err
}

func (s *Session) again(op uint32) {
	if s.replayed != nil {
		s.replayed(op)
	}
}

// awaited asks the kernel whether it waits for the answer to a request. There is
// no question for that; but an answer to the request's INTERRUPT, which differs
// by the lowest bit of the unique, is refused with ENOENT when the request is
// not there, and one without an error does nothing else (since 4.20).
func (s *Session) awaited(unique uint64) bool {
	var m [outHeaderSize]byte
	native.PutUint32(m[:], outHeaderSize)
	native.PutUint64(m[8:], unique|1)
	for {
		_, err := unix.Write(s.fd, m[:])
		if !errors.Is(err, unix.EINTR) {
			return !errors.Is(err, unix.ENOENT)
		}
	}
}

// forget runs a request that wants no answer. It is out of its slot before it
// runs: a FORGET that is lost leaves a node known for too long, one that is run
// twice takes a node away that is in use.
func (s *Session) forget(sl slot, n int) {
	in := slices.Clone(sl.request(n))
	sl.setLength(0)
	s.at("forget", native.Uint32(in[opcodeAt:]))
	s.serve(in, false, nil)
}

// at is where a test may kill.
func (s *Session) at(point string, opcode uint32) {
	if s.fault != nil {
		s.fault(point, opcode)
	}
}
