package seaweed

import (
	"context"
	"fmt"
	"path"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Remove implements storage.Files. An attempt that got no answer may have been
// carried out: the name is gone then, or somebody else has it already.
func (b *bucket) Remove(ctx context.Context, p storage.Path, e storage.Entry, orphan *storage.Orphan) error {
	if p == "" {
		return storage.Errorf(storage.InUse, "the root of a volume cannot be removed")
	}
	o, ok := e.Origin.(origin)
	if !ok {
		return storage.Errorf(storage.Invalid, "remove %q without having read it", p)
	}
	dir, name := b.locate(p)
	mutations := b.unname(dir, name, o.entry, orphan)
	err := b.call(ctx, func(ctx context.Context, attempt int) error {
		err := b.transact(ctx, path.Join(dir, name), standing(o.entry, name, orphan), mutations...)
		if !storage.Is(err, storage.Changed) {
			return err
		}
		now, lookErr := b.raw(ctx, dir, name)
		gone := storage.Is(lookErr, storage.NotFound)
		switch {
		case attempt > 0 && (gone || lookErr == nil && now.GetAttributes().GetInode() != e.Inode):
			return nil
		case gone:
			return lookErr
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove %q: %w", p, err)
	}
	return nil
}

// unname takes a name away, and its content with it, or makes it an orphan: last,
// since an orphan that still has a name would be freed under it.
func (b *bucket) unname(dir, name string, was *filerpb.Entry, orphan *storage.Orphan) []*filerpb.ObjectMutation {
	gone := &filerpb.ObjectMutation{Type: filerpb.ObjectMutation_DELETE, Directory: dir, Name: name, IsDeleteData: orphan == nil}
	if orphan == nil {
		return []*filerpb.ObjectMutation{gone}
	}
	held := proto.CloneOf(was)
	held.HardLinkId, held.HardLinkCounter = nil, 0
	var place string
	place, held.Name = b.orphanPlace(*orphan)
	return []*filerpb.ObjectMutation{gone, {Type: filerpb.ObjectMutation_PUT, Directory: place, Entry: held}}
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
