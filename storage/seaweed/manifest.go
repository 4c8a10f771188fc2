package seaweed

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// resolve turns an entry into ours. Others may have folded its chunks into
// manifests: chunks whose content is a list of chunks, nested at most once in
// practice. They are unfolded here, so that nobody above knows of them.
func (c *Client) resolve(ctx context.Context, w *filerpb.Entry) (storage.Entry, error) {
	e := fromWire(w)
	if !slices.ContainsFunc(w.GetChunks(), (*filerpb.FileChunk).GetIsChunkManifest) {
		return e, nil
	}
	flat, err := c.unfold(ctx, w.GetChunks(), 0)
	if err != nil {
		return e, err
	}
	e.Chunks = nil
	for _, f := range flat {
		e.Chunks = append(e.Chunks, chunkFromWire(f))
	}
	e.Origin, e.Held = origin{w, e.Chunks, e.Size}, storage.Holds(&e)
	return e, nil
}

// maxNesting of manifests: one level holds ten million chunks.
const maxNesting = 4

func (c *Client) unfold(ctx context.Context, in []*filerpb.FileChunk, depth int) ([]*filerpb.FileChunk, error) {
	if depth > maxNesting {
		return nil, storage.Errorf(storage.Corrupt, "chunk manifests nest deeper than %d", maxNesting)
	}
	var out []*filerpb.FileChunk
	for _, f := range in {
		if !f.GetIsChunkManifest() {
			out = append(out, f)
			continue
		}
		m := chunkFromWire(f)
		raw, err := c.readAll(ctx, m.ID)
		if err != nil {
			return nil, fmt.Errorf("read chunk manifest %s: %w", m.ID, err)
		}
		var list filerpb.FileChunkManifest
		if err := proto.Unmarshal(raw, &list); err != nil {
			return nil, storage.Errorf(storage.Corrupt, "parse chunk manifest %s: %w", m.ID, err)
		}
		nested, err := c.unfold(ctx, list.GetChunks(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, nested...)
	}
	return out, nil
}
