package cache

import (
	"context"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is how blocks come: one fetch per miss, whoever waits for it, in
// memory that is bounded. A fetch that the last waiter has left is given up. The
// waiters get the bytes from memory; the disk is written after they have them,
// and when it cannot follow, blocks are not kept rather than readers slowed down.

// fetch is one block on its way. Its memory goes back when nobody is at it.
type fetch struct {
	want
	done   chan struct{}
	cancel context.CancelFunc
	data   []byte // from done on, with err nil
	err    error

	// Under Cache.mu:
	users    int // waiters, readers of data, the goroutine, and being kept
	waiters  int // of these, who wants it to come
	finished bool
	gone     bool // no longer in Cache.mu.fetches
}

// room is the memory that a block takes on its way.
func (w want) room() int64 {
	if w.size <= pieceSize {
		return pieceSize
	}
	return BlockSize
}

// join finds the fetch that will hold what is wanted, or starts one for w. found
// without a fetch: the disk has it now. Neither: read the store itself.
func (c *Cache) join(ctx context.Context, store storage.Chunks, ch storage.Chunk, w want, block key, need int, look bool) (f *fetch, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, false
	}
	if f = c.mu.fetches[block]; f != nil && f.size < need { // of a shorter cut
		if !f.finished {
			return nil, false
		}
		c.unkeepLocked(f)
		f = nil
	}
	if f == nil {
		f = c.mu.fetches[w.key]
	}
	if f != nil && f.size < w.size && f.key != block {
		return nil, false
	}
	if f != nil {
		f.users++
		f.waiters++
		return f, true
	}
	if s := c.slab.Load(); look && s != nil && (s.has(block, need) || s.has(w.key, w.size)) {
		return nil, true
	}
	f, own := c.startLocked(ctx, w)
	f.users++
	f.waiters++
	c.work.Go(func() { c.run(own, f, store, ch, false) })
	return f, false
}

// startLocked makes a fetch that does not end with the first reader's context.
// The goroutine to be started is one of its users.
func (c *Cache) startLocked(ctx context.Context, w want) (*fetch, context.Context) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &fetch{want: w, done: make(chan struct{}), cancel: cancel, users: 1}
	c.mu.fetches[w.key] = f
	c.fetched.Add(1)
	return f, ctx
}

// run fetches f. The memory of one that is ahead is taken already.
func (c *Cache) run(ctx context.Context, f *fetch, store storage.Chunks, ch storage.Chunk, ahead bool) {
	defer f.cancel()
	var err error
	if !ahead {
		err = c.memory.Acquire(ctx, f.room())
	}
	if err == nil {
		data := buffer(f.size)
		if err = store.Read(ctx, ch, data, f.off); err == nil {
			f.data = data
		} else {
			recycle(data)
			c.memory.Release(f.room())
		}
	}
	if ahead {
		c.ahead.Add(-f.room())
	}
	c.mu.Lock()
	f.err, f.finished = err, true
	close(f.done)
	if err != nil {
		c.forgetLocked(f)
		c.unuseLocked(f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.keep(f)
}

// keep brings f to the disk, or keeps it in memory for a while. The caller's use
// of f ends.
func (c *Cache) keep(f *fetch) {
	kept := false
	if s := c.slab.Load(); s != nil {
		if c.behind.Add(f.room()) <= c.share {
			kept = s.insert(f.key, f.data)
		} else {
			s.refuse()
		}
		c.behind.Add(-f.room())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case kept || c.mu.closed || f.gone:
		c.forgetLocked(f)
	default:
		f.users++
		c.mu.kept = append(c.mu.kept, f)
		c.mu.keptBytes += f.room()
		for c.mu.keptBytes > c.share {
			c.unkeepLocked(c.mu.kept[0])
		}
	}
	c.unuseLocked(f)
}

func (s *slab) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.refused++
}

// unkeepLocked forgets a finished fetch, whether it is kept or still on its way
// to the disk.
func (c *Cache) unkeepLocked(f *fetch) {
	for i, x := range c.mu.kept {
		if x == f {
			c.mu.kept = append(c.mu.kept[:i], c.mu.kept[i+1:]...)
			c.mu.keptBytes -= f.room()
			c.unuseLocked(f)
			break
		}
	}
	c.forgetLocked(f)
}

// forgetLocked lets the next reader begin anew.
func (c *Cache) forgetLocked(f *fetch) {
	if !f.gone {
		f.gone = true
		delete(c.mu.fetches, f.key)
	}
}

func (c *Cache) unuseLocked(f *fetch) {
	if f.users--; f.users == 0 && f.data != nil {
		recycle(f.data)
		c.memory.Release(f.room())
		f.data = nil
	}
}

// wait returns when f is there; leave is to be called then. With an error, the
// caller has left already.
func (c *Cache) wait(ctx context.Context, f *fetch) (waited bool, err error) {
	select {
	case <-f.done:
	default:
		waited = true
		select {
		case <-f.done:
		case <-ctx.Done():
			c.leave(f)
			return true, ctx.Err()
		}
	}
	if f.err != nil {
		err = f.err
		c.leave(f)
	}
	return waited, err
}

// leave ends the use of f by one who waited for it.
func (c *Cache) leave(f *fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters--; f.waiters == 0 && !f.finished {
		f.cancel()
		c.forgetLocked(f)
	}
	c.unuseLocked(f)
}

// fetchAhead starts a fetch that nobody waits for, unless the block is there, and
// reports false when there is no room. It never waits.
func (c *Cache) fetchAhead(ctx context.Context, store storage.Chunks, ch storage.Chunk, w want) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || ctx.Err() != nil {
		return false
	}
	if c.mu.fetches[w.key] != nil {
		return true
	}
	if s := c.slab.Load(); s != nil && s.has(w.key, w.size) {
		return true
	}
	if c.ahead.Add(w.room()) > c.share || !c.memory.TryAcquire(w.room()) {
		c.ahead.Add(-w.room())
		return false
	}
	f, own := c.startLocked(ctx, w)
	c.readAhead.Add(1)
	// The interest of who asked counts as a waiter, until its end.
	f.users++
	f.waiters++
	c.work.Go(func() {
		stop := context.AfterFunc(ctx, func() { c.leave(f) })
		closing := context.AfterFunc(c.life, f.cancel) //nolint:contextcheck // the cache ends, whoever asked
		c.run(own, f, store, ch, true)
		closing()
		if stop() {
			c.leave(f)
		}
	})
	return true
}

// admit keeps a block that was just written, if that costs nobody anything.
func (c *Cache) admit(w want, data []byte) {
	if c.behind.Load()+w.room() > c.share || !c.memory.TryAcquire(w.room()) {
		return
	}
	f := &fetch{want: w, done: make(chan struct{}), cancel: func() {}, data: buffer(w.size), finished: true, users: 1}
	copy(f.data, data)
	close(f.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || c.mu.fetches[w.key] != nil {
		f.gone = true
		c.unuseLocked(f)
		return
	}
	c.mu.fetches[w.key] = f
	c.work.Go(func() { c.keep(f) })
}

// Memory for blocks goes round, or a fast reader would make a gigabyte of
// garbage in a second.
var (
	blockBuffers = sync.Pool{New: func() any { return new([BlockSize]byte) }}
	pieceBuffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}
)

func buffer(n int) []byte {
	if n <= pieceSize {
		return pieceBuffers.Get().(*[pieceSize]byte)[:n]
	}
	return blockBuffers.Get().(*[BlockSize]byte)[:n]
}

func recycle(b []byte) {
	if cap(b) == pieceSize {
		pieceBuffers.Put((*[pieceSize]byte)(b[:pieceSize]))
	} else {
		blockBuffers.Put((*[BlockSize]byte)(b[:BlockSize]))
	}
}
