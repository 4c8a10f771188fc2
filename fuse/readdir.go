package fuse

import (
	"context"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// listPage is how many names are asked for at once.
const listPage = 1000

// dirStreams are the open directories, by handle. A cookie is an index into the
// names as they were read; rewinding reads them anew.
type dirStreams struct {
	mu   sync.Mutex
	open map[uint64]*dirStream
	last uint64
}

type dirStream struct {
	mu      sync.Mutex
	entries []storage.Entry
	// asked is the question that entries are the answer to.
	asked *ask
	// ended: entries are all there are.
	ended bool
}

func newDirStreams() *dirStreams { return &dirStreams{open: map[uint64]*dirStream{}} }

func (d *dirStreams) add() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.open[d.last] = &dirStream{}
	return d.last
}

func (d *dirStreams) get(fh uint64) *dirStream {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.open[fh]
	if s == nil { // opened before the mounter was restarted
		s = &dirStream{}
		d.open[fh] = s
		d.last = max(d.last, fh)
	}
	return s
}

func (d *dirStreams) remove(t *table, fh uint64) {
	d.mu.Lock()
	s := d.open[fh]
	delete(d.open, fh)
	d.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rewind(t)
	}
}

// rewind forgets what was read.
func (s *dirStream) rewind(t *table) {
	s.entries, s.ended = nil, false
	if s.asked != nil {
		t.answered(s.asked)
		s.asked = nil
	}
}

// OpenDir implements gofuse.RawFileSystem.
func (fs *FS) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("opendir", nil, err)
	}
	fs.table.open(n, in.Unique)
	out.Fh = fs.dirs.add()
	return gofuse.OK
}

// ReleaseDir implements gofuse.RawFileSystem.
func (fs *FS) ReleaseDir(in *gofuse.ReleaseIn) {
	fs.dirs.remove(fs.table, in.Fh)
	if n := fs.table.get(in.NodeId); n != nil {
		fs.table.release(n, in.Unique)
		fs.table.drop(n)
	}
}

// ReadDir implements gofuse.RawFileSystem.
func (fs *FS) ReadDir(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.readDir(cancel, in, func(_ *node, _ *ask, _ storage.Entry, d gofuse.DirEntry) bool {
		return out.AddDirEntry(d)
	})
}

// ReadDirPlus implements gofuse.RawFileSystem.
func (fs *FS) ReadDirPlus(cancel <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return fs.readDir(cancel, in, func(dir *node, a *ask, e storage.Entry, d gofuse.DirEntry) bool {
		slot := out.AddDirLookupEntry(d)
		if slot == nil {
			return false
		}
		if e.Name == "" { // "." and ".." carry no look-up
			return true
		}
		// Without a node the kernel takes the name alone, and looks it up when it is
		// used.
		if n := fs.bindHeard(a, dir, e.Name, e, true); n != nil {
			fs.entryOut(n, slot)
		}
		return true
	})
}

// readDir gives the names from the request's cookie on to add, until it has no
// room. Cookies 1 and 2 follow "." and "..".
func (fs *FS) readDir(cancel <-chan struct{}, in *gofuse.ReadIn, add func(*node, *ask, storage.Entry, gofuse.DirEntry) bool) gofuse.Status {
	n, err := fs.node(in.NodeId)
	if err != nil {
		return fs.status("readdir", nil, err)
	}
	ctx, done := fs.reading(in.Unique, cancel)
	defer done()
	s := fs.dirs.get(in.Fh)
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Offset == 0 {
		s.rewind(fs.table)
	}
	for at := in.Offset; ; at++ {
		d := gofuse.DirEntry{Off: at + 1, Mode: syscall.S_IFDIR, Ino: n.id}
		var e storage.Entry
		switch at {
		case 0:
			d.Name = "."
		case 1:
			d.Name = ".."
		default:
			i := int(at - 2)
			for i >= len(s.entries) && !s.ended {
				if err := fs.readPage(ctx, n, s); err != nil {
					return fs.status("readdir", n, err)
				}
			}
			if i >= len(s.entries) {
				return gofuse.OK
			}
			e = s.entries[i]
			d.Name, d.Mode, d.Ino = e.Name, kernelMode(e.Mode), fs.inodeOf(n, e)
		}
		if !add(n, s.asked, e, d) {
			return gofuse.OK
		}
	}
}

// readPage reads the next names, and leaves out those that cannot be files.
func (fs *FS) readPage(ctx context.Context, n *node, s *dirStream) error {
	p, done, err := fs.at(ctx, n)
	if err != nil {
		return err
	}
	defer done()
	if s.asked == nil {
		s.asked = fs.table.ask()
	}
	after := ""
	if len(s.entries) > 0 {
		after = s.entries[len(s.entries)-1].Name
	}
	for {
		page, err := fs.vol.Files.List(ctx, p, after, listPage)
		if err != nil {
			return err
		}
		s.ended = len(page) < listPage
		for _, e := range page {
			after = e.Name
			if storage.CheckName(e.Name) == nil {
				s.entries = append(s.entries, e)
			}
		}
		if s.ended || len(page) > 0 {
			return nil
		}
	}
}

// inodeOf is the number that a look-up of the entry would give, as far as it is
// known without one.
func (fs *FS) inodeOf(dir *node, e storage.Entry) uint64 {
	if n := fs.table.child(dir, e.Name); n != nil {
		return n.id
	}
	return e.Inode
}
