package cache

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is how blocks come: one fetch per miss, whoever waits for it, in
// memory that is bounded. A fetch that the last waiter has left is given up. The
// waiters get the bytes from memory; the disk is written after they have them,
// and when it cannot follow, blocks are not kept rather than readers slowed down.
//
// A miss is fetched by the reader's own goroutine. A goroutine for each fetch
// lost: two switches between them, of a read that takes as long as some ten of
// those. The price: when that reader leaves, and others wait, the fetch begins
// anew for them.

// fetch is one block on its way. Its memory goes back when nobody is at it.
type fetch struct {
	want
	done chan struct{}
	data []byte // from done on, with err nil
	err  error

	// Under Cache.mu:
	// INVARIANT: waiters <= users; data is nil when users is 0.
	cancel   context.CancelFunc // of one that no reader's goroutine carries out
	users    int                // waiters, readers of data, who carries it out, and being kept
	waiters  int                // of these, who wants it to come
	finished bool
	gone     bool // no longer in Cache.mu.fetches
}

// join finds the fetch that will hold what is wanted, or starts one for w. found
// without a fetch: the disk has it now. Neither: read the store itself.
func (c *Cache) join(w want, block key, need int, look bool) (f *fetch, found bool) {
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
	f = c.startLocked(w)
	f.users++
	f.waiters++
	c.work.Add(1) // until the caller has called fetch
	c.checkLocked()
	return f, false
}

// startLocked makes a fetch. Who is to carry it out is one of its users.
func (c *Cache) startLocked(w want) *fetch {
	f := &fetch{want: w, done: make(chan struct{}), users: 1}
	c.mu.fetches[w.key] = f
	c.fetched.Add(1)
	return f
}

// fetch carries f out for the reader who found it missing. When he has to leave
// and others wait, it goes on without him.
func (c *Cache) fetch(ctx context.Context, f *fetch, store storage.Chunks, ch storage.Chunk) {
	defer c.work.Done()
	data, err := c.load(ctx, f, store, ch)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && ctx.Err() != nil && f.waiters > 1 {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f.cancel = cancel
		c.work.Go(func() {
			defer cancel()
			data, err := c.load(own, f, store, ch)
			c.mu.Lock()
			ok := c.finishLocked(f, data, err)
			c.mu.Unlock()
			if ok {
				c.keep(f)
			}
		})
		return
	}
	if c.finishLocked(f, data, err) {
		c.work.Go(func() { c.keep(f) })
	}
}

// load takes the memory for f, and its bytes from the store.
func (c *Cache) load(ctx context.Context, f *fetch, store storage.Chunks, ch storage.Chunk) ([]byte, error) {
	if err := c.memory.Acquire(ctx, f.room()); err != nil {
		return nil, err
	}
	return c.fill(ctx, f, store, ch)
}

// fill is load once the memory is taken.
func (c *Cache) fill(ctx context.Context, f *fetch, store storage.Chunks, ch storage.Chunk) ([]byte, error) {
	data := buffer(f.size)
	if err := store.Read(ctx, ch, data, f.off); err != nil {
		recycle(data)
		c.memory.Release(f.room())
		return nil, err
	}
	return data, nil
}

// finishLocked gives the waiters what they wait for, and reports whether it is to
// be kept. If not, the use of f by who carried it out has ended.
func (c *Cache) finishLocked(f *fetch, data []byte, err error) bool {
	f.data, f.err, f.finished = data, err, true
	close(f.done)
	if err != nil {
		c.forgetLocked(f)
		c.unuseLocked(f)
	}
	c.checkLocked()
	return err == nil
}

// keep brings f to the disk, or keeps it in memory for a while. The caller's use
// of f ends.
func (c *Cache) keep(f *fetch) {
	kept := false
	if s := c.slab.Load(); s != nil {
		if c.behind.Add(f.room()) <= c.share {
			kept = s.insert(f.key, f.data, f.quota)
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
	c.checkLocked()
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
	c.checkLocked()
}

// leastAhead is what a block counts at least among those that are ahead: many
// small chunks in a row are not to be many requests at a time.
const leastAhead = 256 << 10

// fetchAhead starts a fetch that nobody waits for yet, unless the block is there,
// and reports false when there is no room. It never waits.
func (c *Cache) fetchAhead(ctx context.Context, store storage.Chunks, ch storage.Chunk, w want) (started, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || ctx.Err() != nil {
		return false, false
	}
	if c.mu.fetches[w.key] != nil {
		return false, true
	}
	if s := c.slab.Load(); s != nil && s.has(w.key, w.size) {
		return false, true
	}
	counts := max(w.room(), leastAhead)
	if c.ahead.Add(counts) > c.share || !c.memory.TryAcquire(w.room()) {
		c.ahead.Add(-counts)
		return false, false
	}
	f := c.startLocked(w)
	// The interest of who asked counts as a waiter, until its end.
	f.users++
	f.waiters++
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	c.work.Go(func() {
		defer cancel()
		stop := context.AfterFunc(ctx, func() { c.leave(f) })
		closing := context.AfterFunc(c.life, cancel) //nolint:contextcheck // the cache ends, whoever asked
		data, err := c.fill(own, f, store, ch)
		closing()
		c.ahead.Add(-counts)
		c.mu.Lock()
		keep := c.finishLocked(f, data, err)
		c.mu.Unlock()
		if keep {
			c.keep(f)
		}
		if stop() {
			c.leave(f)
		}
	})
	return true, true
}

// admit keeps a block that was just written, if that costs nobody anything.
func (c *Cache) admit(w want, data []byte) {
	if c.behind.Load()+w.room() > c.share || !c.memory.TryAcquire(w.room()) {
		return
	}
	f := &fetch{want: w, done: make(chan struct{}), data: buffer(w.size), finished: true, users: 1}
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
