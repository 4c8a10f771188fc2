package seaweed

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Rename implements storage.Files. The filer makes a missing target folder and
// frees the chunks of the target, even when other hard links still show them:
// both are guarded here. A target with other names loses this one first, so for
// a moment the name is missing; other targets are replaced atomically.
func (b *bucket) Rename(ctx context.Context, from, to storage.Path) error {
	if from == to {
		_, err := b.Lookup(ctx, from)
		return err
	}
	parent, _ := to.Split()
	up, err := b.Lookup(ctx, parent)
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	}
	if !up.IsDir() {
		return storage.Errorf(storage.NotDirectory, "rename %q to %q: the target's parent is not a directory", from, to)
	}
	source, err := b.Lookup(ctx, from)
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	}
	target, err := b.Lookup(ctx, to)
	switch {
	case storage.Is(err, storage.NotFound):
	case err != nil:
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	case target.LinkID != "" && target.LinkID == source.LinkID:
		return nil // two names of one file: rename(2) does nothing
	case target.IsDir() && !source.IsDir():
		return storage.Errorf(storage.IsDirectory, "rename %q to %q: the target is a directory", from, to)
	case !target.IsDir() && source.IsDir():
		return storage.Errorf(storage.NotDirectory, "rename %q to %q: the target is not a directory", from, to)
	case target.LinkID != "":
		if err := b.Remove(ctx, to, false); err != nil && !storage.Is(err, storage.NotFound) {
			return fmt.Errorf("rename %q to %q: %w", from, to, err)
		}
	}
	oldDir, oldName := b.locate(from)
	newDir, newName := b.locate(to)
	err = b.call(ctx, func(ctx context.Context, attempt int) error {
		_, err := b.filer.AtomicRenameEntry(ctx, &filerpb.AtomicRenameEntryRequest{
			OldDirectory: oldDir, OldName: oldName, NewDirectory: newDir, NewName: newName,
			Signatures: b.signatures(),
		})
		err = classify(ctx, err)
		if attempt > 0 && storage.Is(err, storage.NotFound) { // done by an attempt that got no answer?
			if e, lookErr := b.entry(ctx, newDir, newName); lookErr == nil && e.Inode == source.Inode {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	}
	return nil
}
