package seaweed

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// chunks implements storage.Chunks for one bucket, or a folder of one. Reading and
// freeing need no bucket: they are the client's.
type chunks struct {
	*Client
	bucket storage.BucketName
	ids    *assigner
}

var _ storage.Chunks = (*chunks)(nil)

func (c *Client) chunks(b storage.BucketName, folder storage.Path) *chunks {
	return &chunks{c, b, newAssigner(b, rootOf(b, folder), func(ctx context.Context, r *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error) {
		return c.filer.AssignVolume(ctx, r)
	})}
}

// Write implements storage.Chunks. An upload that fails is repeated under a new
// id on whatever server is assigned then: an id is never written twice.
func (s *chunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	var id storage.ChunkID
	err := s.call(ctx, func(ctx context.Context, attempt int) error {
		to, err := s.ids.take(ctx, near, len(data))
		if err != nil {
			return err
		}
		if err := s.upload(ctx, to, data, attempt > 0); err != nil {
			s.ids.drop(to.run)
			return err
		}
		s.locations.learn(to.volume, to.at)
		id = to.id
		return nil
	})
	if err != nil {
		return storage.Chunk{}, fmt.Errorf("write a chunk of %d bytes: %w", len(data), err)
	}
	return storage.Chunk{ID: id, Size: int64(len(data))}, nil
}

// warm makes the master grow volumes for a bucket, which would otherwise delay
// its first write.
func (s *chunks) warm(ctx context.Context) error {
	start := time.Now()
	c, err := s.Write(ctx, "", []byte("warm"))
	if err != nil {
		return err
	}
	s.log.Info("bucket warmed", "op", "warm", "bucket", s.bucket, "dur", time.Since(start))
	return s.Delete(ctx, []storage.ChunkID{c.ID})
}
