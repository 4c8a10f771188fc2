package session

import (
	"context"
	"log/slog"
	"math"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// NotifierThread is the name (comm) of the threads that send notifications. The
// keeper does not wait for a dead mounter's threads of that name.
const NotifierThread = "hf-notify"

// Notifier sends notifications from a thread of its own, so that its methods
// never wait and may be called from anywhere. Equal ones that are still queued
// are one, and ranges of a node grow together, so the queue is bounded by the
// nodes and names that the kernel can know. Order is kept between different
// ones.
//
// A full queue that drops was the alternative; a dropped invalidation is a stale
// file for as long as the time-out.
type Notifier struct {
	s   *Session
	log *slog.Logger

	wake chan struct{} // of one: there is something to do

	mu struct {
		sync.Mutex
		// INVARIANT: queue and spans hold the same node keys; a key stands once
		// in order.
		order  []notification
		queued map[notification]bool
		spans  map[uint64]span
		closed bool
	}
}

// notification is one message; for invalidations of a node the range stands in
// spans.
type notification struct {
	code          uint32
	parent, child uint64
	name          string
}

// span is a range of content; attributes alone when from is negative.
type span struct{ from, to int64 }

func newNotifier(s *Session) *Notifier {
	n := &Notifier{s: s, log: s.log, wake: make(chan struct{}, 1)}
	n.mu.queued = make(map[notification]bool)
	n.mu.spans = make(map[uint64]span)
	return n
}

// InvalInode queues Session.InvalInode.
func (n *Notifier) InvalInode(node uint64, off, length int64) error {
	next := span{off, math.MaxInt64}
	switch {
	case off < 0:
		next = span{-1, -1}
	case length > 0 && off <= math.MaxInt64-length:
		next.to = off + length
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, ok := n.mu.spans[node]; ok && !n.mu.closed {
		n.mu.spans[node] = old.union(next)
		return nil
	}
	if err := n.pushLocked(notification{code: notifyInvalInode, parent: node}); err != nil {
		return err
	}
	n.mu.spans[node] = next
	return nil
}

// InvalEntry queues Session.InvalEntry.
func (n *Notifier) InvalEntry(parent uint64, name string) error {
	return n.push(notification{code: notifyInvalEntry, parent: parent, name: name})
}

// Delete queues Session.Delete.
func (n *Notifier) Delete(parent, child uint64, name string) error {
	return n.push(notification{code: notifyDelete, parent: parent, child: child, name: name})
}

// IncEpoch queues Session.IncEpoch. Where the kernel has no epochs that is
// logged once for each time; cached names then live until their time-out.
func (n *Notifier) IncEpoch() error {
	return n.push(notification{code: notifyIncEpoch})
}

func (n *Notifier) push(m notification) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pushLocked(m)
}

func (n *Notifier) pushLocked(m notification) error {
	if n.mu.closed {
		return storage.Errorf(storage.Unavailable, "the session has ended")
	}
	if n.mu.queued[m] {
		return nil
	}
	n.mu.queued[m] = true
	n.mu.order = append(n.mu.order, m)
	select {
	case n.wake <- struct{}{}:
	default:
	}
	return nil
}

// run sends until ctx ends. It keeps its thread to itself and lets it die with
// the goroutine, so that the name never comes to a thread that reads requests.
func (n *Notifier) run(ctx context.Context) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot end before the process and would keep the name,
		// for the whole process at that. As long as this goroutine has it, the
		// next one gets another.
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.run(ctx)
		}()
		<-done
		return
	}
	if err := os.WriteFile("/proc/thread-self/comm", []byte(NotifierThread), 0); err != nil {
		n.log.Warn("the notifier's thread has no name: a take-over may wait for it", "err", err)
	}
	defer n.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		for ctx.Err() == nil {
			m, sp, ok := n.pop()
			if !ok {
				break
			}
			if err := n.send(m, sp); err != nil {
				if storage.Is(err, storage.Unavailable) {
					return
				}
				n.log.Warn("the kernel took no notification", "op", m.code, "err", err)
			}
		}
	}
}

func (n *Notifier) send(m notification, sp span) error {
	switch m.code {
	case notifyInvalInode:
		length := sp.to - sp.from
		if sp.from < 0 || sp.to == math.MaxInt64 {
			length = 0
		}
		return n.s.InvalInode(m.parent, sp.from, length)
	case notifyInvalEntry:
		return n.s.InvalEntry(m.parent, m.name)
	case notifyDelete:
		return n.s.Delete(m.parent, m.child, m.name)
	default:
		return n.s.IncEpoch()
	}
}

func (n *Notifier) pop() (notification, span, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mu.order) == 0 {
		n.mu.order = nil
		return notification{}, span{}, false
	}
	m := n.mu.order[0]
	n.mu.order = n.mu.order[1:]
	delete(n.mu.queued, m)
	var sp span
	if m.code == notifyInvalInode {
		sp = n.mu.spans[m.parent]
		delete(n.mu.spans, m.parent)
	}
	return m, sp, true
}

func (n *Notifier) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.closed = true
	n.mu.order = nil
	clear(n.mu.queued)
	clear(n.mu.spans)
}

func (a span) union(b span) span {
	switch {
	case a.from < 0:
		return b
	case b.from < 0:
		return a
	}
	return span{min(a.from, b.from), max(a.to, b.to)}
}
