package fuse

import (
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
)

// How the content of a file is laid out (storage/DECISIONS.md). Tiny files live in
// their entry: one round trip brings them. Small ones, and those of one chunk
// that were written as a whole, are one chunk, with an MD5 as their ETag. Larger
// ones get new chunks over what is there: no byte is read to change another.

const (
	// inlineFile and below lives in the entry. A listing carries it, so it must not
	// be much.
	inlineFile = 4 << 10
	// smallFile and below is written again as a whole: less than what one more
	// chunk costs every reader from then on.
	smallFile = 64 << 10
	// parallelUploads of one commit; the node's bound on bytes stands above it.
	parallelUploads = 8
)

// lay brings what the stage holds to the store and puts it into next. It returns
// the chunks that are of use for this very commit alone.
func (fs *FS) lay(ctx context.Context, n *node, next *storage.Entry, s *stage) ([]storage.Chunk, error) {
	near, err := fs.table.path(n)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	size := s.length(next.Size)
	whole := len(s.dirty) == 1 && s.dirty[0] == span{0, size}
	n.mu.RUnlock()
	if size <= smallFile || whole && size <= storage.ChunkSize {
		return fs.layWhole(ctx, near, n, next, size)
	}
	var made []storage.Chunk
	if head := min(int64(len(next.Inline)), s.base); head > 0 { // moves out of the entry
		c, _, err := fs.store(ctx, near, n, span{0, head})
		if err != nil {
			return nil, err
		}
		made = []storage.Chunk{c}
	}
	if err := fs.layDirty(ctx, near, n, s); err != nil {
		fs.freeChunks(ctx, n, ids(made))
		return nil, err
	}
	kept := storage.Cut(append(next.Chunks, made...), s.base)
	n.mu.RLock()
	laid := ordered(s.laid, storage.NextModified(kept))
	n.mu.RUnlock()
	next.Chunks = storage.Visible(append(kept, laid...))
	next.Inline, next.Size, next.MD5 = nil, size, nil
	return made, nil
}

// layWhole writes a file of at most one chunk.
func (fs *FS) layWhole(ctx context.Context, near storage.Path, n *node, next *storage.Entry, size int64) ([]storage.Chunk, error) {
	if size <= inlineFile {
		data, err := fs.visible(ctx, n, span{0, size}, make([]byte, size))
		if err != nil {
			return nil, err
		}
		sum := md5.Sum(data)
		next.Chunks, next.Inline, next.Size, next.MD5 = nil, data, size, sum[:]
		return nil, nil
	}
	c, sum, err := fs.store(ctx, near, n, span{0, size})
	if err != nil {
		return nil, err
	}
	next.Chunks, next.Inline, next.Size, next.MD5 = []storage.Chunk{c}, nil, size, sum
	return next.Chunks, nil
}

// layDirty uploads the dirty ranges, in parallel, and lays them into the stage: a
// commit that has to be repeated does not upload them again, nor does the next
// mounter.
func (fs *FS) layDirty(ctx context.Context, near storage.Path, n *node, s *stage) error {
	var pieces []span
	n.mu.RLock()
	for _, d := range s.dirty {
		for at := d.from; at < d.to; at += storage.ChunkSize {
			pieces = append(pieces, span{at, min(at+storage.ChunkSize, d.to)})
		}
	}
	n.mu.RUnlock()
	made := make([]storage.Chunk, len(pieces))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelUploads)
	for i, p := range pieces {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			c, _, err := fs.store(ctx, near, n, p)
			if err == nil { // at once, so that no death leaves it behind unknown
				fs.memo.note(laidRecord(n.id, c))
			}
			made[i] = c
			return err
		})
	}
	err := group.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range slices.Backward(made) { // from behind: the ranges shrink at their end
		if c.ID == "" {
			continue
		}
		s.lay(c)
	}
	return err
}

// laidRecord notes that a range of a stage is a chunk in the store now.
func laidRecord(id uint64, c storage.Chunk) record {
	c.Origin = nil // the adapter's, and of no use to the next process
	data, _ := json.Marshal(c)
	return record{kind: recLaid, id: id, data: data}
}

// store uploads what a range of the file shows as one chunk, and returns its MD5.
func (fs *FS) store(ctx context.Context, near storage.Path, n *node, p span) (storage.Chunk, []byte, error) {
	size := p.to - p.from
	buf, err := fs.opts.Uploads.take(ctx, size)
	if err != nil {
		return storage.Chunk{}, nil, err
	}
	defer fs.opts.Uploads.give(buf, size)
	data, err := fs.visible(ctx, n, p, buf)
	if err != nil {
		return storage.Chunk{}, nil, err
	}
	c, err := fs.vol.Chunks.Write(ctx, near, data)
	if err != nil {
		return storage.Chunk{}, nil, err
	}
	c.Offset, c.Modified = p.from, 1
	sum := c.MD5
	if sum == nil && p.from == 0 {
		whole := md5.Sum(data)
		sum = whole[:]
	}
	return c, sum, nil
}

// visible reads a range of what the file shows into buf.
func (fs *FS) visible(ctx context.Context, n *node, p span, buf []byte) ([]byte, error) {
	got, err := fs.readAt(ctx, n, buf, p.from)
	if err == nil && got != len(buf) {
		err = fmt.Errorf("got %d bytes of %d at %d", got, len(buf), p.from)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is to be committed: %w", err)
	}
	return buf, nil
}
