package seaweed

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// chunks implements storage.Chunks for one bucket.
type chunks struct {
	*Client
	bucket storage.BucketName
}

var _ storage.Chunks = (*chunks)(nil)

// Write implements storage.Chunks. An upload that fails is repeated under a new
// id on whatever server is assigned then: an id is never written twice.
func (s *chunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	sum := md5.Sum(data)
	var id storage.ChunkID
	err := s.call(ctx, func(ctx context.Context, _ int) error {
		r, err := s.filer.AssignVolume(ctx, &filerpb.AssignVolumeRequest{
			Count: 1, Collection: string(s.bucket), Path: path.Join(bucketsDir, string(s.bucket), string(near)),
			ExpectedDataSize: uint64(len(data)),
		})
		if err != nil {
			return classify(ctx, err)
		}
		if r.GetError() != "" {
			kind := textKind(r.GetError())
			if kind == storage.Other || kind == storage.NotFound {
				kind = storage.Unavailable
			}
			return storage.Errorf(kind, "assign a chunk: %s", r.GetError())
		}
		id = storage.ChunkID(r.GetFileId())
		volume, err := volumeOf(id)
		if err != nil {
			return err
		}
		if err := s.upload(ctx, r, data, sum[:]); err != nil {
			return err
		}
		s.locations.learn(volume, r.GetLocation().GetUrl())
		return nil
	})
	if err != nil {
		return storage.Chunk{}, fmt.Errorf("write a chunk of %d bytes: %w", len(data), err)
	}
	return storage.Chunk{ID: id, Size: int64(len(data)), MD5: sum[:]}, nil
}

func (s *chunks) upload(ctx context.Context, r *filerpb.AssignVolumeResponse, data, sum []byte) error {
	target := "http://" + r.GetLocation().GetUrl() + "/" + r.GetFileId()
	if r.GetFsync() {
		target += "?fsync=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, target, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum))
	req.Header.Set("Content-Type", "application/octet-stream")
	authorize(req, r.GetAuth())
	resp, err := s.http.Do(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer drain(resp)
	if resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusOK {
		return nil
	}
	return answered(resp)
}

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
		resp, err := c.http.Do(req)
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

func authorize(req *http.Request, token string) {
	if token != "" {
		req.Header.Set("Authorization", "BEARER "+token)
	}
}

// answered turns a volume server's refusal into an error.
func answered(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	kind := storage.Unavailable
	switch resp.StatusCode {
	case http.StatusNotFound:
		kind = storage.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = storage.Denied
	case http.StatusRequestedRangeNotSatisfiable:
		kind = storage.Corrupt
	case http.StatusBadRequest:
		kind = storage.Invalid
	default:
		if k := textKind(string(text)); k == storage.Full {
			kind = k
		}
	}
	return storage.Errorf(kind, "volume server: %s: %s", resp.Status, bytes.TrimSpace(text))
}

// unreachable classifies a failed exchange: the caller's own end passes, the
// rest is worth another try.
func unreachable(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return storage.Errorf(storage.Unavailable, "volume server: %w", err)
}

// drain lets the connection be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
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
