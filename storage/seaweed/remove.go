package seaweed

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Remove implements storage.Files. The filer calls the removal of a missing name
// a success, so the name is looked up first.
func (b *bucket) Remove(ctx context.Context, p storage.Path, keepData bool) error {
	if p == "" {
		return storage.Errorf(storage.InUse, "the root of a volume cannot be removed")
	}
	if _, err := b.Lookup(ctx, p); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	dir, name := b.locate(p)
	if err := b.remove(ctx, dir, name, !keepData); err != nil {
		return fmt.Errorf("remove %q: %w", p, err)
	}
	return nil
}

// remove deletes one entry; a missing one is fine.
func (c *Client) remove(ctx context.Context, dir, name string, data bool) error {
	return c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.DeleteEntry(ctx, &filerpb.DeleteEntryRequest{
			Directory: dir, Name: name, IsDeleteData: data, Signatures: c.signatures(),
		})
		if err != nil {
			return classify(ctx, err)
		}
		err = refused(filerpb.FilerError_OK, r.GetError())
		if storage.Is(err, storage.NotFound) {
			return nil
		}
		return err
	})
}
