package seaweed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
)

// parallelFrees is how many chunks are freed at a time: 100 GiB are 26,000 of
// them. Each removal goes to one server, which tells the replicas. The other
// way, a list of ids in one gRPC call, removes on that one server alone, so that
// a replica that is away keeps its copies for ever.
const parallelFrees = 16

// Delete implements storage.Chunks. When a volume has no server, its other chunks
// are not waited for, each in turn.
func (c *Client) Delete(ctx context.Context, ids []storage.ChunkID) error {
	var mu sync.Mutex
	away := map[string]error{}
	var failed error
	var group errgroup.Group
	group.SetLimit(parallelFrees)
	for _, id := range ids {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			volume, err := volumeOf(id)
			if err == nil {
				mu.Lock()
				err = away[volume]
				mu.Unlock()
				if err != nil {
					return nil // told for the first one
				}
				err = c.deleteChunk(ctx, volume, id)
			}
			if err == nil || storage.Is(err, storage.NotFound) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if storage.Is(err, storage.Unavailable) {
				away[volume] = err
			}
			failed = errors.Join(failed, fmt.Errorf("delete chunk %s: %w", id, err))
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return failed
}

func (c *Client) deleteChunk(ctx context.Context, volume string, id storage.ChunkID) error {
	return c.call(ctx, func(ctx context.Context, _ int) error {
		return c.ask(ctx, volume, func(url string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+url+"/"+string(id), nil)
			if err != nil {
				return err
			}
			resp, err := c.volumes.RoundTrip(req)
			if err != nil {
				return unreachable(ctx, err)
			}
			defer drain(resp)
			if resp.StatusCode/100 == 2 {
				return nil
			}
			return answered(resp)
		})
	})
}
