package fuse

import (
	"context"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// Flags of linux/falloc.h that are served.
const (
	fallocKeepSize  = 1
	fallocPunchHole = 2
	fallocZeroRange = 16
)

// Fallocate implements gofuse.RawFileSystem: growing, holes and zeros. Space is
// looked for and not set aside: it would have to be remembered which holes have it.
func (fs *FS) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("fallocate", nil, err)
	}
	if err := fs.writable(); err != nil {
		return fs.status("fallocate", n, err)
	}
	ctx, done := fs.changing()
	defer done()
	return fs.status("fallocate", n, fs.fallocate(ctx, n, in.Mode, int64(in.Offset), int64(in.Offset+in.Length)))
}

func (fs *FS) fallocate(ctx context.Context, n *node, mode uint32, from, to int64) error {
	if from < 0 || to <= from {
		return storage.Errorf(storage.Invalid, "bytes %d to %d", from, to)
	}
	keep := mode&fallocKeepSize != 0
	hole := false
	switch mode &^ fallocKeepSize {
	case 0:
	case fallocZeroRange:
		hole = true
	case fallocPunchHole:
		if !keep {
			return storage.Errorf(storage.Unsupported, "a hole that changes the size")
		}
		hole = true
	default:
		return storage.Errorf(storage.Unsupported, "fallocate mode %#x", mode)
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if hole {
		if err := fs.punch(ctx, n, from, to); err != nil {
			return err
		}
	} else if err := fs.roomFor(ctx, n, span{from, to}); err != nil {
		return err
	}
	if size := n.shown().Size; keep || to <= size {
		return nil
	}
	return fs.truncate(ctx, n, to)
}
