package redotest

import (
	"context"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/storage"
)

// Every scenario begins with the same names: two files, a file with two names,
// a directory with a file in it, an empty one.
//
//	f g    plain files, "f" and "g"
//	h i    two names of one file, "hi"
//	d/x    a file in a directory, "x"
//	e/     an empty directory

// change is what is cut short.
type change struct {
	name string
	// open is a file that has a handle all the time, or none.
	open storage.Path
	run  func(m *mounter, unique uint64) gofuse.Status
	// source and target of the change, for the foreign writer.
	source, target storage.Path
}

var changes = []change{
	{name: "link", run: link("f", "new"), source: "f", target: "new"},
	{name: "one more link", run: link("h", "new"), source: "h", target: "new"},
	{name: "link to a taken name", run: link("f", "g"), source: "f", target: "g"},
	{name: "rename", run: rename("f", "new"), source: "f", target: "new"},
	{name: "rename, open", open: "f", run: rename("f", "new"), source: "f", target: "new"},
	{name: "rename over a file", run: rename("f", "g"), source: "f", target: "g"},
	{name: "rename over an open file", open: "g", run: rename("f", "g"), source: "f", target: "g"},
	{name: "rename over a hard link", run: rename("f", "h"), source: "f", target: "h"},
	{name: "rename of a hard link over a file", run: rename("h", "g"), source: "h", target: "g"},
	{name: "rename of a directory", run: rename("d", "new"), source: "d", target: "new"},
	{name: "rename over a directory", run: rename("d", "e"), source: "d", target: "e"},
	{name: "unlink", run: unlink("f"), source: "f"},
	{name: "unlink, open", open: "f", run: unlink("f"), source: "f"},
	{name: "unlink of a hard link", open: "h", run: unlink("h"), source: "h"},
	{name: "rmdir", run: rmdir("e"), source: "e"},
}

func link(from, to string) func(*mounter, uint64) gofuse.Status {
	return func(m *mounter, unique uint64) gofuse.Status {
		var out gofuse.EntryOut
		in := &gofuse.LinkIn{InHeader: header(1), Oldnodeid: m.nodes[storage.Path(from)]}
		in.Unique = unique
		return m.fs.Link(nil, in, to, &out)
	}
}

func rename(from, to string) func(*mounter, uint64) gofuse.Status {
	return func(m *mounter, unique uint64) gofuse.Status {
		in := &gofuse.RenameIn{InHeader: header(1), Newdir: 1}
		in.Unique = unique
		return m.fs.Rename(nil, in, from, to)
	}
}

func unlink(name string) func(*mounter, uint64) gofuse.Status {
	return func(m *mounter, unique uint64) gofuse.Status {
		h := header(1)
		h.Unique = unique
		return m.fs.Unlink(nil, &h, name)
	}
}

func rmdir(name string) func(*mounter, uint64) gofuse.Status {
	return func(m *mounter, unique uint64) gofuse.Status {
		h := header(1)
		h.Unique = unique
		return m.fs.Rmdir(nil, &h, name)
	}
}

// foreign is what another writer does meanwhile. What cannot be done is not.
type foreign struct {
	name string
	run  func(ctx context.Context, v storage.Volume, c change)
}

var foreigners = []foreign{
	{"nobody", func(context.Context, storage.Volume, change) {}},
	{"source removed", func(ctx context.Context, v storage.Volume, c change) { remove(ctx, v, c.source) }},
	{"source replaced", func(ctx context.Context, v storage.Volume, c change) {
		remove(ctx, v, c.source)
		_ = makeFile(ctx, v, c.source, "foreign")
	}},
	{"source moved", func(ctx context.Context, v storage.Volume, c change) {
		if e, err := v.Files.Lookup(ctx, c.source); err == nil {
			_ = v.Files.Rename(ctx, c.source, "moved", e, nil, nil)
		}
	}},
	{"source changed", func(ctx context.Context, v storage.Volume, c change) {
		if e, err := v.Files.Lookup(ctx, c.source); err == nil {
			e.UID = 77
			_, _ = v.Files.Update(ctx, c.source, e)
		}
	}},
	{"target removed", func(ctx context.Context, v storage.Volume, c change) { remove(ctx, v, c.target) }},
	{"target replaced", func(ctx context.Context, v storage.Volume, c change) {
		remove(ctx, v, c.target)
		_ = makeFile(ctx, v, c.target, "foreign")
	}},
	{"target made", func(ctx context.Context, v storage.Volume, c change) { _ = makeFile(ctx, v, c.target, "foreign") }},
}

func remove(ctx context.Context, v storage.Volume, p storage.Path) {
	if p == "" {
		return
	}
	if e, err := v.Files.Lookup(ctx, p); err == nil {
		_ = v.Files.Remove(ctx, p, e, nil)
	}
}

func makeFile(ctx context.Context, v storage.Volume, p storage.Path, content string) error {
	if p == "" {
		return nil
	}
	c, err := v.Chunks.Write(ctx, p, []byte(content))
	if err != nil {
		return err
	}
	c.Modified = 1
	_, err = v.Files.Create(ctx, p, storage.Entry{
		Mode: 0o644, Native: true, Inode: rand.Uint64()>>2 | 1<<40,
		Size: c.Size, MD5: c.MD5, Chunks: []storage.Chunk{c},
	}, false)
	if err != nil {
		return fmt.Errorf("make %q: %w", p, err)
	}
	return nil
}

func makeDir(ctx context.Context, v storage.Volume, p storage.Path) error {
	_, err := v.Files.Create(ctx, p, storage.Entry{Mode: iofs.ModeDir | 0o755, Native: true, Inode: rand.Uint64()>>2 | 1<<40}, false)
	return err
}

// furnish makes the names that every scenario begins with.
func furnish(ctx context.Context, v storage.Volume) error {
	for _, d := range []storage.Path{"d", "e"} {
		if err := makeDir(ctx, v, d); err != nil {
			return err
		}
	}
	for p, content := range map[storage.Path]string{"f": "f", "g": "g", "h": "hi", "d/x": "x"} {
		if err := makeFile(ctx, v, p, content); err != nil {
			return err
		}
	}
	e, err := v.Files.Lookup(ctx, "h")
	if err == nil {
		e, err = v.Files.BeginLink(ctx, "h", e, "furnish")
	}
	if err == nil {
		_, err = v.Files.EndLink(ctx, "h", "i", e, "furnish")
	}
	return err
}

// mounter is one that is alive, or was.
type mounter struct {
	fs    *fuse.FS
	nodes map[storage.Path]uint64
}

func header(node uint64) gofuse.InHeader {
	return gofuse.InHeader{NodeId: node}
}

func (m *mounter) lookup(name storage.Path) gofuse.Status {
	var out gofuse.EntryOut
	h := header(1)
	st := m.fs.Lookup(nil, &h, string(name), &out)
	if st.Ok() {
		m.nodes[name] = out.NodeId
	}
	return st
}
