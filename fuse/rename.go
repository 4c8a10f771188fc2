package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// renameNoReplace is RENAME_NOREPLACE of linux/fs.h, the one flag that is
// served; the kernel answers EINVAL for the others as we do.
const renameNoReplace = 1

// Rename implements gofuse.RawFileSystem.
func (fs *FS) Rename(_ <-chan struct{}, in *gofuse.RenameIn, from, to string) gofuse.Status {
	dir, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("rename", nil, err)
	}
	toDir, err := fs.node(in.Newdir)
	if err != nil {
		return fs.status("rename", dir, err)
	}
	if in.Flags&^renameNoReplace != 0 {
		return gofuse.EINVAL
	}
	if err := fs.writable(); err != nil {
		return fs.status("rename", dir, err)
	}
	ctx, done := fs.changing()
	defer done()
	return fs.status("rename", dir, fs.rename(ctx, in.Unique, dir, from, toDir, to, in.Flags&renameNoReplace != 0))
}

// rename moves a name. Carried out again for a request that the mounter before
// had begun, it goes by which inode has which name now.
func (fs *FS) rename(ctx context.Context, unique uint64, dir *node, from string, toDir *node, to string, noReplace bool) error {
	if err := storage.CheckName(to); err != nil {
		return err
	}
	fromPath, err := fs.table.path(dir)
	if err != nil {
		return err
	}
	toPath, err := fs.table.path(toDir)
	if err != nil {
		return err
	}
	moving, err := fs.vol.Files.Lookup(ctx, fromPath.Join(from))
	if err != nil && !storage.Is(err, storage.NotFound) {
		return err
	}
	missing := err
	target, err := fs.vol.Files.Lookup(ctx, toPath.Join(to))
	if was, replayed := fs.memo.before(unique); replayed {
		if err == nil && target.Inode == was.inode && (missing != nil || moving.Inode != was.inode) {
			fs.table.move(dir, from, toDir, to)
			return nil
		}
	} else if missing == nil {
		if err := fs.memo.intend(unique, moving.Inode); err != nil {
			return err
		}
	}
	switch {
	case storage.Is(err, storage.NotFound):
	case err != nil:
		return err
	case noReplace:
		return storage.Errorf(storage.Exists, "%q exists", toPath.Join(to))
	}
	if missing != nil {
		return missing
	}
	source := fs.table.child(dir, from)
	if source != nil {
		// A commit under way would miss the file at its old place.
		end, err := source.begin(ctx)
		if err != nil {
			return err
		}
		defer end()
	}
	if err := fs.vol.Files.Rename(ctx, fromPath.Join(from), toPath.Join(to)); err != nil {
		return err
	}
	if source != nil && target.LinkID != "" && target.LinkID == source.stored().LinkID {
		return nil // two names of one file: rename(2) does nothing
	}
	if replaced := fs.table.child(toDir, to); replaced != nil {
		replaced.doubt() // a hard link has one name less
	}
	fs.table.move(dir, from, toDir, to)
	return nil
}
