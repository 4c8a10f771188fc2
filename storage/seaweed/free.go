package seaweed

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/holdfast-csi/holdfast/storage"
)

// Delete implements storage.Chunks.
func (c *Client) Delete(ctx context.Context, ids []storage.ChunkID) error {
	var failed error
	for _, id := range ids {
		if err := c.deleteChunk(ctx, id); err != nil && !storage.Is(err, storage.NotFound) {
			failed = errors.Join(failed, fmt.Errorf("delete chunk %s: %w", id, err))
		}
	}
	return failed
}

func (c *Client) deleteChunk(ctx context.Context, id storage.ChunkID) error {
	volume, err := volumeOf(id)
	if err != nil {
		return err
	}
	return c.call(ctx, func(ctx context.Context, _ int) error {
		urls, err := c.locations.get(ctx, volume)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+urls[0]+"/"+string(id), nil)
		if err != nil {
			return err
		}
		resp, err := c.volumes.RoundTrip(req)
		if err != nil {
			c.locations.forget(volume)
			return unreachable(ctx, err)
		}
		defer drain(resp)
		if resp.StatusCode/100 == 2 {
			return nil
		}
		return answered(resp)
	})
}
