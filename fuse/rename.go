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
	was, replayed := fs.memo.before(unique)
	for try := range maxRetries {
		trust := try == 0 && !replayed
		source, moving, err := fs.current(ctx, dir, from, trust)
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
		missing := err
		target, replaced, err := fs.current(ctx, toDir, to, trust)
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
		if replayed && target != nil && replaced.Inode == was.inode && (missing != nil || moving.Inode != was.inode) {
			fs.table.move(dir, from, toDir, to)
			return nil
		}
		if missing != nil {
			return missing
		}
		if noReplace && target != nil {
			return storage.Errorf(storage.Exists, "%q exists", to)
		}
		if !replayed {
			if err := fs.memo.intend(unique, moving.Inode); err != nil {
				return err
			}
		}
		err = fs.renameInTurn(ctx, &move{dir, from, source, moving, toDir, to, target, replaced})
		if !storage.Is(err, storage.Changed) {
			return err
		}
	}
	return storage.Errorf(storage.Busy, "rename %q: others changed it %d times meanwhile", from, maxRetries)
}

// move is a rename: a name in a directory, what stands for it, and the same of
// where it goes. target is nil when nothing is there.
type move struct {
	dir      *node
	from     string
	source   *node
	moving   storage.Entry
	toDir    *node
	to       string
	target   *node
	replaced storage.Entry
}

// renameInTurn moves a name, provided that both stand for what is said of them.
func (fs *FS) renameInTurn(ctx context.Context, m *move) error {
	// A commit under way would miss the file at its old place.
	end, err := m.source.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	fromPath, err := fs.table.path(m.dir)
	if err != nil {
		return err
	}
	toPath, err := fs.table.path(m.toDir)
	if err != nil {
		return err
	}
	var replaced *storage.Entry
	if m.target != nil {
		replaced = &m.replaced
	}
	if err := fs.vol.Files.Rename(ctx, fromPath.Join(m.from), toPath.Join(m.to), m.moving, replaced, nil); err != nil {
		return err
	}
	if replaced != nil && replaced.LinkID != "" && replaced.LinkID == m.moving.LinkID {
		return nil // two names of one file: rename(2) does nothing
	}
	if m.target != nil {
		m.target.doubt() // a hard link has one name less
	}
	fs.table.move(m.dir, m.from, m.toDir, m.to)
	return nil
}
