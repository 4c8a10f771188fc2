package seaweed

import (
	"context"
	"fmt"
	"path"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Rename implements storage.Files. The filer's own rename takes no condition,
// makes a missing target folder, and frees the chunks of the target even when
// other hard links or open files still show them. So both names and the folder
// are looked at right before it; and a target whose chunks have to stay is
// replaced by a transaction, which is conditioned on the source. In the moment
// between the look and the change somebody else's change of a name that we
// replace or move can still slip in; it is then as if it had come first.
func (b *bucket) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, orphan *storage.Orphan) error {
	if err := b.rename(ctx, from, to, source, target, orphan); err != nil {
		return fmt.Errorf("rename %q to %q: %w", from, to, err)
	}
	return nil
}

func (b *bucket) rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, orphan *storage.Orphan) error {
	oldDir, oldName := b.locate(from)
	newDir, newName := b.locate(to)
	if from != to && to.Within(from) {
		return storage.Errorf(storage.Invalid, "a directory cannot move into itself")
	}
	if err := b.call(ctx, func(ctx context.Context, _ int) error { return b.asRead(ctx, from, to, source, target) }); err != nil {
		return err
	}
	switch {
	case from == to, target != nil && target.LinkID != "" && target.LinkID == source.LinkID:
		return nil // rename(2) does nothing
	case target != nil && target.IsDir() && !source.IsDir():
		return storage.Errorf(storage.IsDirectory, "the target is a directory")
	case target != nil && !target.IsDir() && source.IsDir():
		return storage.Errorf(storage.NotDirectory, "the target is not a directory")
	}
	// An attempt that got no answer may have been carried out.
	done := func(ctx context.Context, attempt int, err error) bool {
		if attempt == 0 || !storage.Is(err, storage.NotFound) && !storage.Is(err, storage.Changed) {
			return false
		}
		now, lookErr := b.raw(ctx, newDir, newName)
		return lookErr == nil && now.GetAttributes().GetInode() == source.Inode
	}
	if target != nil && !target.IsDir() && (orphan != nil || target.LinkID != "") {
		err := b.call(ctx, func(ctx context.Context, attempt int) error {
			if attempt > 0 {
				if there, err := b.swapped(ctx, to, source, *target); err != nil {
					return err
				} else if there {
					return b.endSwap(ctx, from, source)
				}
			}
			err := b.swap(ctx, from, to, source, *target, orphan)
			if done(ctx, attempt, err) {
				return nil
			}
			return err
		})
		if err == nil || storage.IsContext(err) || storage.Is(err, storage.Changed) || storage.Is(err, storage.Unavailable) {
			return err
		}
		// Half done: the target is away, or nothing is changed. What is left is a
		// plain rename, or the refusal once more.
		if _, lookErr := b.Lookup(ctx, to); !storage.Is(lookErr, storage.NotFound) {
			return err
		}
	}
	return b.call(ctx, func(ctx context.Context, attempt int) error {
		_, err := b.filer.AtomicRenameEntry(ctx, &filerpb.AtomicRenameEntryRequest{
			OldDirectory: oldDir, OldName: oldName, NewDirectory: newDir, NewName: newName,
			Signatures: b.signatures(),
		})
		err = classify(ctx, err)
		if done(ctx, attempt, err) {
			return nil
		}
		return err
	})
}

// asRead looks whether both names, and the folder of the new one, are as the
// caller has read them.
func (b *bucket) asRead(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry) error {
	oldDir, oldName := b.locate(from)
	newDir, newName := b.locate(to)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.compare(ctx, oldDir, oldName, source) })
	if target != nil {
		group.Go(func() error {
			err := b.compare(ctx, newDir, newName, *target)
			if storage.Is(err, storage.NotFound) { // NotFound is the source's
				return storage.Errorf(storage.Changed, "%w", err)
			}
			return err
		})
		return group.Wait()
	}
	group.Go(func() error {
		_, err := b.raw(ctx, newDir, newName)
		switch {
		case err == nil:
			return storage.Errorf(storage.Changed, "something is at %q by now", to)
		case !storage.Is(err, storage.NotFound):
			return err
		}
		return nil
	})
	group.Go(func() error {
		dir, name := b.locate(parentOf(to))
		up, err := b.raw(ctx, dir, name)
		if err == nil && !up.GetIsDirectory() {
			return storage.Errorf(storage.NotDirectory, "the target's parent is not a directory")
		}
		return err
	})
	return group.Wait()
}

func parentOf(p storage.Path) storage.Path {
	parent, _ := p.Split()
	return parent
}

// swap puts a file in the place of another one whose content stays. A hard link
// counts the new name before the old one is taken from the count.
func (b *bucket) swap(ctx context.Context, from, to storage.Path, source, target storage.Entry, orphan *storage.Orphan) error {
	oldDir, oldName := b.locate(from)
	newDir, newName := b.locate(to)
	was := source.Origin.(origin).entry //nolint:forcetypeassert // compared before
	moved := proto.CloneOf(was)
	moved.Name = newName
	if len(moved.GetHardLinkId()) > 0 {
		moved.HardLinkCounter++
	}
	replaced := target.Origin.(origin).entry //nolint:forcetypeassert // compared before
	return b.transact(ctx, path.Join(oldDir, oldName), unchanged(was, oldName), append(
		b.unname(newDir, newName, replaced, orphan),
		&filerpb.ObjectMutation{Type: filerpb.ObjectMutation_PUT, Directory: newDir, Entry: moved},
		&filerpb.ObjectMutation{Type: filerpb.ObjectMutation_DELETE, Directory: oldDir, Name: oldName},
	)...)
}

// swapped reports whether an attempt that got no answer has put source in the place
// of target. Another swap would take it for the target, and free its chunks.
func (b *bucket) swapped(ctx context.Context, to storage.Path, source, target storage.Entry) (bool, error) {
	dir, name := b.locate(to)
	now, err := b.raw(ctx, dir, name)
	if storage.Is(err, storage.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return source.Inode != target.Inode && now.GetAttributes().GetInode() == source.Inode, nil
}

// endSwap takes the old name away, if it is there still.
func (b *bucket) endSwap(ctx context.Context, from storage.Path, source storage.Entry) error {
	dir, name := b.locate(from)
	old, err := b.raw(ctx, dir, name)
	switch {
	case storage.Is(err, storage.NotFound):
		return nil
	case err != nil:
		return err
	case old.GetAttributes().GetInode() != source.Inode:
		return nil // somebody else has it already
	}
	err = b.transact(ctx, path.Join(dir, name), unchanged(old, name),
		&filerpb.ObjectMutation{Type: filerpb.ObjectMutation_DELETE, Directory: dir, Name: name})
	if storage.Is(err, storage.Changed) { // it is looked at again
		return storage.Errorf(storage.Unavailable, "%w", err)
	}
	return err
}
