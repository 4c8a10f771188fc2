package fuse

import (
	"context"
	"sync"
	"time"
)

// This file is the context of one request: it ends at the volume's deadline, and
// for what can be repeated also when the kernel says that the caller was
// signalled.
//
// The standard library's would do, at a price for each request: a context over a
// channel that it does not know costs a goroutine, and so does each one derived
// from it. Here nothing is made before somebody waits. A read from what the node
// holds costs the structure and nothing else; what is derived is told by AfterFunc.

// call is a context.Context.
type call struct {
	until time.Time

	mu struct {
		sync.Mutex
		err error
		// INVARIANT: timer is set while done is open; both are nil until asked for.
		done  chan struct{}
		timer *time.Timer
		after map[*func()]struct{}
	}
}

var _ context.Context = (*call)(nil)

func newCall(d time.Duration) *call { return &call{until: time.Now().Add(d)} }

// Deadline implements context.Context.
func (c *call) Deadline() (time.Time, bool) { return c.until, true }

// Value implements context.Context.
func (c *call) Value(any) any { return nil }

// Done implements context.Context.
func (c *call) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.done == nil {
		c.mu.done = make(chan struct{})
		if c.mu.err != nil {
			close(c.mu.done)
		} else {
			c.mu.timer = time.AfterFunc(time.Until(c.until), func() { c.end(context.DeadlineExceeded) })
		}
	}
	return c.mu.done
}

// Err implements context.Context.
func (c *call) Err() error {
	c.mu.Lock()
	err := c.mu.err
	c.mu.Unlock()
	if err == nil && !time.Now().Before(c.until) {
		c.end(context.DeadlineExceeded)
		return context.DeadlineExceeded
	}
	return err
}

// AfterFunc is what package context looks for in a context that is not its own,
// instead of starting a goroutine that watches it.
func (c *call) AfterFunc(f func()) (stop func() bool) {
	c.Done() // somebody waits
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.mu.after == nil {
		c.mu.after = make(map[*func()]struct{})
	}
	c.mu.after[&f] = struct{}{}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.mu.after[&f]
		delete(c.mu.after, &f)
		return waits
	}
}

// finish ends the call that is over.
func (c *call) finish() { c.end(context.Canceled) }

// end ends it once; the first reason counts.
func (c *call) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return
	}
	c.mu.err = err
	if c.mu.done != nil {
		c.mu.timer.Stop()
		close(c.mu.done)
	}
	for f := range c.mu.after {
		go (*f)() // it may take locks of its own
	}
	c.mu.after = nil
}

// calls are those that an interrupt ends, by the request's unique.
type calls struct {
	mu   sync.Mutex
	open map[uint64]*call
}

// changing is the context of an operation that changes something: an
// interrupted system call may have been carried out, so it is not given up when
// the application is signalled.
func (fs *FS) changing() (context.Context, context.CancelFunc) {
	c := newCall(fs.opts.Deadline)
	return c, c.finish
}

// reading is the context of an operation that can be repeated: it ends when the
// kernel says that the caller was signalled, which it does by closing cancel and
// calling Interrupted, in this order.
func (fs *FS) reading(unique uint64, cancel <-chan struct{}) (context.Context, context.CancelFunc) {
	c := newCall(fs.opts.Deadline)
	fs.calls.mu.Lock()
	fs.calls.open[unique] = c
	fs.calls.mu.Unlock()
	select {
	case <-cancel: // before it could be found
		c.finish()
	default:
	}
	return c, func() {
		fs.calls.mu.Lock()
		if fs.calls.open[unique] == c {
			delete(fs.calls.open, unique)
		}
		fs.calls.mu.Unlock()
		c.finish()
	}
}

// Interrupted ends the call of a request whose caller was signalled, if it can be
// repeated. It implements session.Interrupter.
func (fs *FS) Interrupted(unique uint64) {
	fs.calls.mu.Lock()
	c := fs.calls.open[unique]
	fs.calls.mu.Unlock()
	if c != nil {
		c.finish()
	}
}
