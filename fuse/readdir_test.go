package fuse

import (
	"encoding/binary"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

func (c *caller) mkdir(dir uint64, name string) (uint64, gofuse.Status) {
	var out gofuse.EntryOut
	st := c.fs.Mkdir(nil, &gofuse.MkdirIn{InHeader: header(dir), Mode: 0o755}, name, &out)
	return out.NodeId, st
}

// dirent is one name as the kernel reads it.
type dirent struct {
	name string
	ino  uint64
	off  uint64
}

func (c *caller) opendir(dir uint64) uint64 {
	c.t.Helper()
	var out gofuse.OpenOut
	c.ok("opendir", c.fs.OpenDir(nil, &gofuse.OpenIn{InHeader: header(dir)}, &out))
	return out.Fh
}

// readdir reads what fits into a buffer, from a cookie on.
func (c *caller) readdir(dir, fh, off uint64, room int) ([]dirent, gofuse.Status) {
	list := gofuse.NewDirEntryList(make([]byte, room), off)
	st := c.fs.ReadDir(nil, &gofuse.ReadIn{InHeader: header(dir), Fh: fh, Offset: off, Size: uint32(room)}, list)
	var out []dirent
	for b := list.Bytes(); len(b) > 0; {
		n := binary.NativeEndian.Uint32(b[16:])
		out = append(out, dirent{string(b[24 : 24+n]), binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])})
		b = b[(24+n+7)&^7:]
	}
	return out, st
}

// list reads a whole directory.
func (c *caller) list(dir uint64) ([]string, gofuse.Status) {
	fh := c.opendir(dir)
	defer c.fs.ReleaseDir(&gofuse.ReleaseIn{InHeader: header(dir), Fh: fh})
	var names []string
	for off := uint64(0); ; {
		got, st := c.readdir(dir, fh, off, 4096)
		if !st.Ok() || len(got) == 0 {
			return names, st
		}
		for _, d := range got {
			if d.name != "." && d.name != ".." {
				names = append(names, d.name)
			}
			off = d.off
		}
	}
}
