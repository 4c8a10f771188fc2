package session

import (
	"errors"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// This file answers one request. An answer is one write(2): the kernel takes it
// whole or not at all.

const (
	// smallAnswer has room for every answer without a payload of known size:
	// the longest is the target of a symbolic link.
	smallAnswer = outHeaderSize + 512 + 4096

	// middleAnswer is the largest of which there may be as many as there are
	// requests.
	middleAnswer = 72 << 10

	// Where the requests say how much they want (linux/fuse.h).
	readSizeAt  = inHeaderSize + 16
	xattrSizeAt = inHeaderSize
	ioctlSizeAt = inHeaderSize + 28
)

// serve answers one request, and reports whether a successor has nothing more to
// do with it. again tells the file system that it may have run before: the
// unique that it sees has uniqueAgain set, the request in its slot, and the
// answer, keep the kernel's.
func (s *Session) serve(in []byte, again bool, f *flight) (answered bool) {
	if s.abandoned() {
		return false
	}
	op := native.Uint32(in[opcodeAt:])
	unique := native.Uint64(in[uniqueAt:])
	var began time.Time
	if s.counters != nil {
		began = time.Now()
	}
	size := answerSize(op, in)
	if size > middleAnswer {
		switch s.takeAnswer(f) {
		case roomTaken:
			defer s.leaveAnswer()
		case roomLeft:
			return false
		case roomInterrupted:
			var out [outHeaderSize]byte
			s.send(op, out[:refuse(out[:], in, fuse.EINTR)])
			return true
		}
	}
	out := s.heap.take(size)
	defer s.heap.give(out)
	parts := [][]byte{in}
	if again {
		head := slices.Clone(in[:inHeaderSize])
		native.PutUint64(head[uniqueAt:], unique|uniqueAgain)
		parts = [][]byte{head, in[inHeaderSize:]}
	}
	n, status := s.server.HandleRequest(parts, [][]byte{*out})
	if n == 0 {
		switch op {
		case opForget, opBatchForget, opNotifyReply:
			return true // no answer is wanted
		}
		// go-fuse could not make an answer. Without one the application would
		// hang.
		s.log.Error("a request could not be answered", "op", op, "err", status)
		n = refuse(*out, in, fuse.EIO)
	}
	native.PutUint64((*out)[uniqueAt:], unique)
	if s.abandoned() {
		return false
	}
	s.at("answer", op)
	s.send(op, (*out)[:n])
	if s.counters != nil {
		s.counters.note(op, time.Since(began), (*out)[:n])
	}
	if s.traffic != nil {
		s.traffic.note(op, (*out)[:n])
	}
	return true
}

// outcome of waiting for room for a large answer.
type outcome int

const (
	roomTaken outcome = iota
	roomLeft          // to a successor
	roomInterrupted
)

// takeAnswer waits for the right to make a large answer. It is the handler that
// waits, so nobody is kept from being read.
func (s *Session) takeAnswer(f *flight) outcome {
	for _, room := range []chan struct{}{s.answers, s.slots.answers} {
		got := roomTaken
		select {
		case room <- struct{}{}:
			continue
		default:
		}
		s.at("room", opRead)
		select {
		case room <- struct{}{}:
			continue
		case <-s.void:
			got = roomLeft
		case <-f.wake:
			got = roomInterrupted
		}
		if room == s.slots.answers {
			<-s.answers
		}
		return got
	}
	return roomTaken
}

func (s *Session) leaveAnswer() {
	<-s.slots.answers
	<-s.answers
}

// send writes an answer. ENOENT: nobody waits for it any more. ENODEV, EPERM: the
// session has ended.
func (s *Session) send(op uint32, answer []byte) {
	for {
		_, err := unix.Write(s.fd, answer)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EPERM):
			return
		case errors.Is(err, unix.EINTR):
			continue
		}
		s.log.Error("the kernel took no answer", "op", op, "err", err)
		if len(answer) > outHeaderSize {
			// It refuses the form of it; an error it will take.
			answer = answer[:refuse(answer, nil, fuse.EIO)]
			continue
		}
		return
	}
}

// refuse writes an error answer into out. The unique is that of request, or
// stays as it is.
func refuse(out, request []byte, status fuse.Status) int {
	native.PutUint32(out, outHeaderSize)
	native.PutUint32(out[4:], uint32(-int32(status)))
	if request != nil {
		native.PutUint64(out[8:], native.Uint64(request[uniqueAt:]))
	}
	return outHeaderSize
}

// answerSize returns how much room the answer needs.
func answerSize(op uint32, in []byte) int {
	at := 0
	switch op {
	case opRead, opReadDir, opReadDirPlus:
		at = readSizeAt
	case opGetXattr, opListXattr:
		at = xattrSizeAt
	case opIoctl:
		at = ioctlSizeAt
	default:
		return smallAnswer
	}
	if len(in) < at+4 {
		return smallAnswer
	}
	return max(smallAnswer, outHeaderSize+512+int(native.Uint32(in[at:])))
}
