package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// DefaultLimit of the disk.
	DefaultLimit = 4 << 30
	// MinLimit holds a few blocks and what the cache needs for itself.
	MinLimit = 4 << 20
	// DefaultMemory for blocks that are under way.
	DefaultMemory = 64 << 20
	// MinMemory gives each of the four kinds of work two blocks.
	MinMemory = 8 * BlockSize
	// lockedPause is how often a folder is tried again that another process has:
	// a killed worker lets go of it when the last of its threads is gone.
	// brokenPause is for folders that fail otherwise.
	lockedPause, brokenPause = time.Second, 30 * time.Second
)

// Options of a cache. The zero value keeps blocks in memory only.
type Options struct {
	// Dir is the cache's folder, made when missing (not its parents). One process
	// uses it at a time.
	Dir string
	// Limit of what the files in Dir take on the disk, in bytes, all included
	// (DefaultLimit when zero).
	Limit int64
	// Cluster names what the chunks come from, whatever name tells it from any
	// other cluster: two clusters give out the same chunk ids.
	Cluster string
	// Memory bounds the blocks that are fetched, read ahead or on their way to
	// the disk, in bytes (DefaultMemory when zero).
	Memory int64
	// SkipWrites keeps out what is written here, until it is read. What is larger
	// than a block is kept out anyway.
	SkipWrites bool
	Log        *slog.Logger

	folder func(dir string) (folder, error) // of the tests
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Dir != "" && !filepath.IsAbs(o.Dir):
		return storage.Errorf(storage.Invalid, "cache folder %q: must be an absolute path", o.Dir)
	case o.Limit != 0 && o.Limit < MinLimit:
		return storage.Errorf(storage.Invalid, "cache limit of %d bytes: must be at least %d", o.Limit, MinLimit)
	case o.Memory != 0 && o.Memory < MinMemory:
		return storage.Errorf(storage.Invalid, "cache memory of %d bytes: must be at least %d", o.Memory, MinMemory)
	}
	return nil
}

// Cache keeps blocks of chunks for all volumes of a node.
type Cache struct {
	log        *slog.Logger
	dir        string
	limit      int64
	scope      scope
	skipWrites bool
	folder     func(dir string) (folder, error)

	// memory is what is under way; share of it is the most that each of ahead,
	// behind and kept may take, so a fetch that somebody waits for always finds
	// the rest.
	memory        *semaphore.Weighted
	share         int64
	ahead, behind atomic.Int64

	life      context.Context // of the work that nobody waits for
	stop      context.CancelFunc
	work      sync.WaitGroup // blocks on their way
	attaching sync.WaitGroup

	slab    atomic.Pointer[slab] // nil while there is no disk
	streams streams

	hits, misses, fetched, readAhead atomic.Uint64

	mu struct {
		sync.Mutex
		closed bool
		// fetches by key: those under way, on their way to the disk, and the kept
		// ones, which no disk took, the oldest first.
		// INVARIANT: keptBytes is the sum of kept, and at most share.
		fetches   map[key]*fetch
		kept      []*fetch
		keptBytes int64
	}
}

// Open makes a cache. A folder that cannot be used is no reason to fail: the
// cache works in memory, says so, and takes the folder when it can. Only options
// that are wrong are an error.
func Open(ctx context.Context, o Options) (*Cache, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.folder == nil {
		o.folder = openFolder
	}
	c := &Cache{
		log: o.Log, dir: o.Dir, limit: o.Limit, scope: newScope(o.Cluster), skipWrites: o.SkipWrites, folder: o.folder,
		memory: semaphore.NewWeighted(o.Memory), share: o.Memory / 4,
	}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.mu.fetches = map[key]*fetch{}
	c.streams.max = c.mayBeAhead
	if o.Dir == "" {
		return c, nil
	}
	if err := c.attach(); err != nil {
		if storage.Is(err, storage.InUse) {
			c.log.Warn("the chunk cache's folder is in use by another process; working in memory until it ends", "path", c.dir, "err", err)
		} else {
			c.log.Warn("the chunk cache's folder cannot be used; working in memory until it can", "path", c.dir, "err", err)
		}
		c.attaching.Go(func() { c.attachLater(err) })
	}
	return c, nil
}

// mayBeAhead is how far one reader may be read ahead. Without a disk a few readers
// share what is kept in memory: more would push out what is not read yet.
func (c *Cache) mayBeAhead() int64 {
	if c.slab.Load() == nil {
		return max(c.share/4, BlockSize)
	}
	return min(maxWindow, c.share)
}

// attach takes the folder.
func (c *Cache) attach() error {
	folder, err := c.folder(c.dir)
	if err != nil {
		return fmt.Errorf("cache folder: %w", err)
	}
	s, err := openSlab(folder, c.limit, c.log)
	if err != nil {
		return errors.Join(fmt.Errorf("cache folder %s: %w", c.dir, err), folder.close())
	}
	c.slab.Store(s)
	return nil
}

func (c *Cache) attachLater(err error) {
	for err != nil {
		pause := brokenPause
		if storage.Is(err, storage.InUse) {
			pause = lockedPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-c.life.Done():
			timer.Stop()
			return
		}
		err = c.attach()
	}
	c.log.Info("the chunk cache has its folder now", "path", c.dir)
}

// Close ends read-ahead, waits for what is under way and leaves the blocks to the
// next Open. Reads that come later go to the store.
func (c *Cache) Close(ctx context.Context) error {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.closed = true
	for len(c.mu.kept) > 0 {
		c.unkeepLocked(c.mu.kept[0])
	}
	c.mu.Unlock()
	if closed {
		return nil
	}
	c.stop()
	c.streams.close()
	done := make(chan struct{})
	go func() {
		c.work.Wait()
		c.attaching.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s := c.slab.Load(); s != nil {
		if err := s.close(ctx); err != nil {
			return fmt.Errorf("close the cache: %w", err)
		}
	}
	return nil
}

// Stats is what a cache has done since it was opened, and holds.
type Stats struct {
	// Hits and Misses count blocks that were asked for: a hit was on the disk or
	// in memory when it was, or just being fetched.
	Hits, Misses uint64
	// Fetches from the store, of which ReadAhead were not yet asked for.
	Fetches, ReadAhead uint64
	// Bad blocks: torn, damaged, or another's. Each was a miss.
	Bad uint64
	// Evictions for the limit's sake.
	Evictions uint64
	// Failures of the disk, and blocks that were not kept: because of such, or
	// because they came faster than the disk takes them.
	Failures, Refused uint64
	// Blocks on the disk, the Bytes that they take there at most, and the Limit.
	Blocks       int
	Bytes, Limit int64
	// Disk is false while blocks are kept in memory only.
	Disk bool
}

// Stats returns the figures.
func (c *Cache) Stats() Stats {
	st := Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Fetches: c.fetched.Load(), ReadAhead: c.readAhead.Load(), Limit: c.limit,
	}
	if s := c.slab.Load(); s != nil {
		s.stats(&st)
	}
	return st
}

func (s *slab) stats(st *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Bad, st.Evictions, st.Failures, st.Refused = s.mu.bad, s.mu.evicted, s.mu.failures, s.mu.refused
	st.Blocks, st.Bytes = s.mu.t.count(), (s.mu.t.pages+s.mu.drift)*pageSize+s.indexSize
	st.Disk = !s.mu.failing && !s.mu.closed
}
