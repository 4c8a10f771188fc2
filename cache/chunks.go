package cache

import (
	"container/list"
	"context"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// BlockSize is what a miss fetches: with the kernel's read-ahead of 1 MiB a
	// sequential reader makes one request per MiB.
	BlockSize = 1 << 20
	// DefaultLimit of the memory for blocks.
	DefaultLimit = 64 << 20
)

// Chunks serves reads from memory, and from the store behind it. Writes and
// deletions pass through.
type Chunks struct {
	storage.Chunks
	limit int64

	mu struct {
		sync.Mutex
		// blocks by key; recent has the one used last in front. INVARIANT: the same
		// blocks are in both, and used is the sum of their sizes.
		blocks map[key]*list.Element
		recent list.List
		used   int64
		// fetches under way.
		fetches map[key]*fetch
	}
}

type key struct {
	chunk storage.ChunkID
	block int64
}

type block struct {
	key
	data []byte
}

// fetch is one miss that any number of readers wait for. It is given up when
// the last of them has left.
type fetch struct {
	done    chan struct{}
	data    []byte
	err     error
	waiters int
	cancel  context.CancelFunc
}

var _ storage.Chunks = (*Chunks)(nil)

// New puts a cache of limit bytes (DefaultLimit when zero) in front of a store.
func New(store storage.Chunks, limit int64) *Chunks {
	if limit == 0 {
		limit = DefaultLimit
	}
	c := &Chunks{Chunks: store, limit: limit}
	c.mu.blocks, c.mu.fetches = map[key]*list.Element{}, map[key]*fetch{}
	return c
}

// Read implements storage.Chunks.
func (c *Chunks) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	for len(b) > 0 {
		at := off / BlockSize * BlockSize
		data, err := c.block(ctx, ch, at)
		if err != nil {
			return err
		}
		if off-at >= int64(len(data)) {
			return storage.Errorf(storage.Corrupt, "read chunk %s at %d: it ends at %d", ch.ID, off, at+int64(len(data)))
		}
		n := copy(b, data[off-at:])
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// block returns the block of ch that begins at offset at.
func (c *Chunks) block(ctx context.Context, ch storage.Chunk, at int64) ([]byte, error) {
	k := key{ch.ID, at}
	// Size may have been cut by a truncation: the block is what the file can
	// still see, and another cut of the same chunk may want more.
	want := min(BlockSize, ch.Size-at)
	if want <= 0 {
		return nil, storage.Errorf(storage.Corrupt, "read chunk %s at %d: it has %d bytes", ch.ID, at, ch.Size)
	}
	for {
		c.mu.Lock()
		if e := c.mu.blocks[k]; e != nil {
			if data := e.Value.(*block).data; int64(len(data)) >= want {
				c.mu.recent.MoveToFront(e)
				c.mu.Unlock()
				return data, nil
			}
			c.dropLocked(e)
		}
		f := c.mu.fetches[k]
		if f == nil {
			f = c.startLocked(ctx, ch, k, want)
		}
		f.waiters++
		c.mu.Unlock()
		data, err := c.wait(ctx, k, f)
		if err != nil || int64(len(data)) >= want {
			return data, err
		}
	}
}

// startLocked begins a fetch that does not end with the first reader's context.
func (c *Chunks) startLocked(ctx context.Context, ch storage.Chunk, k key, n int64) *fetch {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &fetch{done: make(chan struct{}), cancel: cancel}
	c.mu.fetches[k] = f
	go func() {
		defer cancel()
		data := make([]byte, n)
		err := c.Chunks.Read(ctx, ch, data, k.block)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err == nil {
			f.data = data
			c.addLocked(&block{k, data})
		}
		f.err = err
		if c.mu.fetches[k] == f {
			delete(c.mu.fetches, k)
		}
		close(f.done)
	}()
	return f
}

func (c *Chunks) wait(ctx context.Context, k key, f *fetch) ([]byte, error) {
	select {
	case <-f.done:
		return f.data, f.err
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.waiters--; f.waiters == 0 {
			f.cancel()
			if c.mu.fetches[k] == f { // the next reader begins anew
				delete(c.mu.fetches, k)
			}
		}
		return nil, ctx.Err()
	}
}

func (c *Chunks) addLocked(b *block) {
	if e := c.mu.blocks[b.key]; e != nil {
		c.dropLocked(e)
	}
	c.mu.blocks[b.key] = c.mu.recent.PushFront(b)
	c.mu.used += int64(len(b.data))
	for c.mu.used > c.limit && c.mu.recent.Len() > 1 {
		c.dropLocked(c.mu.recent.Back())
	}
}

func (c *Chunks) dropLocked(e *list.Element) {
	b := e.Value.(*block)
	c.mu.recent.Remove(e)
	delete(c.mu.blocks, b.key)
	c.mu.used -= int64(len(b.data))
}
