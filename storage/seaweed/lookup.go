package seaweed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// bucketsDir is where the S3 gateway keeps its buckets.
const bucketsDir = "/buckets"

// rootOf is where the root of a volume lies on the filer.
func rootOf(b storage.BucketName, folder storage.Path) string {
	return path.Join(bucketsDir, string(b), string(folder))
}

// bucket implements storage.Files, for a bucket or a folder of one.
type bucket struct {
	*Client
	root string
	id   storage.VolumeID
}

var _ storage.Files = (*bucket)(nil)

// locate gives the directory and the name of p on the filer.
func (b *bucket) locate(p storage.Path) (dir, name string) {
	if p == "" {
		return path.Dir(b.root), path.Base(b.root)
	}
	parent, name := p.Split()
	return path.Join(b.root, string(parent)), name
}

// Lookup implements storage.Files.
func (b *bucket) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	dir, name := b.locate(p)
	e, err := b.entry(ctx, dir, name)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("look up %q: %w", p, err)
	}
	if p == "" {
		e.Name = ""
	}
	return e, nil
}

// entry reads one entry, manifests resolved.
func (c *Client) entry(ctx context.Context, dir, name string) (storage.Entry, error) {
	var e storage.Entry
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.LookupDirectoryEntry(ctx, &filerpb.LookupDirectoryEntryRequest{Directory: dir, Name: name})
		if err != nil {
			return classify(ctx, err)
		}
		e, err = c.resolve(ctx, r.GetEntry())
		return err
	})
	return e, err
}

// List implements storage.Files.
func (b *bucket) List(ctx context.Context, p storage.Path, after string, limit int) ([]storage.Entry, error) {
	dir := path.Join(b.root, string(p))
	entries, err := b.list(ctx, dir, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", p, err)
	}
	if len(entries) == 0 && after == "" { // empty, missing, or a file?
		e, err := b.Lookup(ctx, p)
		if err != nil {
			return nil, err
		}
		if !e.IsDir() {
			return nil, storage.Errorf(storage.NotDirectory, "list %q: not a directory", p)
		}
	}
	return entries, nil
}

func (c *Client) list(ctx context.Context, dir, after string, limit int) ([]storage.Entry, error) {
	var entries []storage.Entry
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		entries = entries[:0]
		stream, err := c.filer.ListEntries(ctx, &filerpb.ListEntriesRequest{Directory: dir, StartFromFileName: after, Limit: uint32(limit)})
		if err != nil {
			return classify(ctx, err)
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				if _, ok := status.FromError(err); ok {
					return classify(ctx, err)
				}
				return err
			}
			if r.GetEntry() == nil {
				continue // the first message may carry a time stamp alone
			}
			e, err := c.resolve(ctx, r.GetEntry())
			if err != nil {
				return err
			}
			entries = append(entries, e)
		}
	})
	return entries, err
}
