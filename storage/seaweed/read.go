package seaweed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Read implements storage.Chunks.
func (c *Client) Read(ctx context.Context, ch storage.Chunk, b []byte, off int64) error {
	if len(b) == 0 {
		return nil
	}
	if o, ok := ch.Origin.(*filerpb.FileChunk); ok && (o.GetSseType() != 0 || len(o.GetCipherKey()) > 0) {
		return storage.Errorf(storage.Unsupported, "chunk %s is encrypted: read the object over S3", ch.ID)
	}
	got, err := c.fetch(ctx, ch.ID, off, int64(len(b)))
	if err != nil {
		return fmt.Errorf("read chunk %s at %d: %w", ch.ID, off, err)
	}
	if len(got) != len(b) {
		return storage.Errorf(storage.Corrupt, "read chunk %s at %d: got %d bytes of %d", ch.ID, off, len(got), len(b))
	}
	copy(b, got)
	return nil
}

// fetch reads n bytes from off, or all of the chunk when n is negative. A chunk
// that was deleted is served until its volume is vacuumed: a reader of a file
// that somebody replaced goes on with it.
func (c *Client) fetch(ctx context.Context, id storage.ChunkID, off, n int64) ([]byte, error) {
	volume, err := volumeOf(id)
	if err != nil {
		return nil, err
	}
	var got []byte
	err = c.call(ctx, func(ctx context.Context, _ int) error {
		urls, err := c.locations.get(ctx, volume)
		if err != nil {
			return err
		}
		var last error
		for _, query := range []string{"", "?readDeleted=true"} {
			for _, url := range urls {
				got, last = c.get(ctx, "http://"+url+"/"+string(id)+query, off, n)
				if last == nil || storage.IsContext(last) {
					return last
				}
			}
			if !storage.Is(last, storage.NotFound) {
				break
			}
		}
		c.locations.forget(volume)
		return last
	})
	return got, err
}

func (c *Client) get(ctx context.Context, url string, off, n int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if n >= 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, answered(resp)
	}
	if n < 0 {
		got, err := io.ReadAll(resp.Body)
		return got, unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK && off > 0 { // the server ignored the range
		if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
			return nil, unreachable(ctx, err)
		}
	}
	got := make([]byte, n)
	read, err := io.ReadFull(resp.Body, got)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return got[:read], nil // shorter than asked for: the caller judges
	}
	return got, unreachable(ctx, err)
}
