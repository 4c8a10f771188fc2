package seaweed

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

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
	err := c.fetch(ctx, ch.ID, off, int64(len(b)), func(resp *http.Response) error {
		if resp.ContentLength >= 0 && resp.ContentLength < int64(len(b)) {
			return storage.Errorf(storage.Corrupt, "%d bytes of %d", resp.ContentLength, len(b))
		}
		_, err := io.ReadFull(resp.Body, b)
		return unreachable(ctx, err)
	})
	if err != nil {
		return fmt.Errorf("read chunk %s at %d: %w", ch.ID, off, err)
	}
	return nil
}

// readAll reads a chunk of unknown size.
func (c *Client) readAll(ctx context.Context, id storage.ChunkID) ([]byte, error) {
	var got []byte
	err := c.fetch(ctx, id, 0, -1, func(resp *http.Response) error {
		var err error
		got, err = io.ReadAll(resp.Body)
		return unreachable(ctx, err)
	})
	return got, err
}

// fetch has take read n bytes from off, or all of the chunk when n is negative. A
// chunk that was deleted is served until its volume is vacuumed: a reader of a
// file that somebody replaced goes on with it. take may be called again after it
// has failed.
func (c *Client) fetch(ctx context.Context, id storage.ChunkID, off, n int64, take func(*http.Response) error) error {
	volume, err := volumeOf(id)
	if err != nil {
		return err
	}
	return c.call(ctx, func(ctx context.Context, _ int) error {
		return c.ask(ctx, volume, func(at holder) error {
			err := c.get(ctx, c.url(at, string(id)), off, n, take)
			if storage.Is(err, storage.NotFound) {
				err = c.get(ctx, c.url(at, string(id)+"?readDeleted=true"), off, n, take)
			}
			return err
		})
	})
}

func (c *Client) get(ctx context.Context, url string, off, n int64, take func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// Else a server may compress the answer, and apply the range to that.
	req.Header.Set("Accept-Encoding", "identity")
	from := ""
	if n >= 0 {
		from = "bytes=" + strconv.FormatInt(off, 10) + "-"
		req.Header.Set("Range", from+strconv.FormatInt(off+n-1, 10))
	}
	resp, err := c.volumes.RoundTrip(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer drain(resp)
	switch resp.StatusCode {
	case http.StatusPartialContent:
		// Bytes from elsewhere would be cached as these.
		if got := resp.Header.Get("Content-Range"); n < 0 || !strings.HasPrefix(strings.Replace(got, " ", "=", 1), from) {
			return storage.Errorf(storage.Unavailable, "volume server: asked for %s, got %q", from, got)
		}
	case http.StatusOK: // the server ignored the range
		if _, err := io.CopyN(io.Discard, resp.Body, max(off, 0)); err != nil {
			return unreachable(ctx, err)
		}
		if resp.ContentLength >= 0 && n >= 0 {
			resp.ContentLength = max(resp.ContentLength-off, 0)
		}
	default:
		return answered(resp)
	}
	return take(resp)
}
