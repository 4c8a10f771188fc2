package fuse

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-csi/holdfast/storage"
)

// uploadsInMemory is what the uploads of a node hold in memory together, in
// bytes: a dozen chunks under way fill a link of 10 Gbit/s.
const uploadsInMemory = 48 << 20

// Uploads bounds what is on its way to the store, for all file systems of a
// process together.
type Uploads struct {
	room *semaphore.Weighted
	// whole are buffers of a whole chunk, used again.
	whole sync.Pool
}

// NewUploads returns a bound of so many bytes, the default when zero. It is never
// less than one chunk.
func NewUploads(bytes int64) *Uploads {
	if bytes == 0 {
		bytes = uploadsInMemory
	}
	return &Uploads{room: semaphore.NewWeighted(max(bytes, storage.ChunkSize))}
}

// take waits for room for n bytes, at most a chunk, and returns a buffer of that
// size, its content undefined.
func (u *Uploads) take(ctx context.Context, n int64) ([]byte, error) {
	if err := u.room.Acquire(ctx, n); err != nil {
		return nil, err
	}
	return u.buffer(n), nil
}

// tryTake is take without waiting; nil when there is no room.
func (u *Uploads) tryTake(n int64) []byte {
	if !u.room.TryAcquire(n) {
		return nil
	}
	return u.buffer(n)
}

func (u *Uploads) buffer(n int64) []byte {
	if n < storage.ChunkSize {
		return make([]byte, n)
	}
	if b, ok := u.whole.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, storage.ChunkSize)
}

// give gives a buffer of n bytes back.
func (u *Uploads) give(b []byte, n int64) {
	if n == storage.ChunkSize {
		u.whole.Put(&b)
	}
	u.room.Release(n)
}
