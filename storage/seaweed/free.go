package seaweed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/volumepb"
)

const (
	// freedAtOnce is how many chunks one call frees: 100 GiB are 26,000 of them, and
	// the server reads each, to check that the id is the chunk's own.
	freedAtOnce = 64
	// parallelFrees is how many calls are under way.
	parallelFrees = 8
)

// Delete implements storage.Chunks. When a volume has no server, its other chunks
// are not waited for, each in turn.
//
// It is a call of the volume servers' gRPC, which lets in by certificate. Over
// HTTP each chunk is a request, and in a closed cluster each needs a token that
// the master alone gives out.
func (c *Client) Delete(ctx context.Context, ids []storage.ChunkID) error {
	var mu sync.Mutex
	away := map[string]bool{}
	var failed error
	byVolume := map[string][]string{}
	for _, id := range ids {
		volume, err := volumeOf(id)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("delete chunk %s: %w", id, err))
			continue
		}
		byVolume[volume] = append(byVolume[volume], string(id))
	}
	var group errgroup.Group
	group.SetLimit(parallelFrees)
	for volume, all := range byVolume {
		for batch := range slices.Chunk(all, freedAtOnce) {
			group.Go(func() error {
				mu.Lock()
				skip := away[volume]
				mu.Unlock()
				if skip || ctx.Err() != nil {
					return nil // told for the batch before
				}
				err := c.free(ctx, volume, batch)
				if err == nil {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				away[volume] = away[volume] || storage.Is(err, storage.Unavailable)
				failed = errors.Join(failed, fmt.Errorf("delete chunks of volume %s: %w", volume, err))
				return nil
			})
		}
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return failed
}

// free removes chunks of one volume from every server that has it. Each removes
// its own copies alone, so the servers are looked up anew: what an assignment has
// told is one of them. One that is away and is not listed any more keeps its
// copies, whichever way they are removed.
func (c *Client) free(ctx context.Context, volume string, ids []string) error {
	return c.call(ctx, func(ctx context.Context, _ int) error {
		found, err := c.locations.lookup(ctx, []string{volume})
		if err != nil {
			return err
		}
		if len(found[volume]) == 0 {
			return storage.Errorf(storage.Unavailable, "volume %s has no server now", volume)
		}
		var failed error
		for _, at := range found[volume] {
			if err := c.freeAt(ctx, at, ids); err != nil {
				failed = firstOf(failed, err)
			}
		}
		return failed
	})
}

// freeAt removes chunks from one server. A server stops at an id that is not the
// chunk's own, and answers for those before it.
func (c *Client) freeAt(ctx context.Context, at holder, ids []string) error {
	server, err := c.servers.at(at.grpc)
	if err != nil {
		return err
	}
	var failed error
	for len(ids) > 0 {
		bounded, end, err := allowed(ctx, c.guard)
		if err != nil {
			return err
		}
		r, err := server.BatchDelete(bounded, &volumepb.BatchDeleteRequest{FileIds: ids})
		end()
		if err != nil {
			return classifyFrom(ctx, "volume server", err)
		}
		done := r.GetResults()
		if len(done) == 0 || len(done) > len(ids) {
			return storage.Errorf(storage.Unavailable, "volume server: %d answers for %d chunks", len(done), len(ids))
		}
		for _, d := range done {
			failed = firstOf(failed, freed(d))
		}
		ids = ids[len(done):]
	}
	return failed
}

// freed reads the answer for one chunk. One that is not there is as good as
// removed.
func freed(d *volumepb.DeleteResult) error {
	kind := storage.Unavailable
	switch d.GetStatus() {
	case http.StatusOK, http.StatusAccepted, http.StatusNotModified, http.StatusNotFound:
		return nil
	case http.StatusBadRequest, http.StatusNotAcceptable:
		kind = storage.Invalid
	}
	return storage.Errorf(kind, "volume server: %s: %d %s", d.GetFileId(), d.GetStatus(), d.GetError())
}
