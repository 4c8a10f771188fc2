package main

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// loopCommand is how this program is told to be the loopback.
const loopCommand = "loop"

// serveLoop shows a folder through FUSE and does nothing else: what a file system
// that is served by a Go process can reach on this machine. The kernel's own
// passthrough is off, since with it the process serves nothing.
func serveLoop(dir, backing string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(backing, &st); err != nil {
		return err
	}
	root := &gofuse.LoopbackRoot{Path: backing, Dev: st.Dev}
	top := &loopNode{gofuse.LoopbackNode{RootData: root}}
	root.RootNode = top
	second := time.Second
	server, err := gofuse.Mount(dir, top, &gofuse.Options{
		AttrTimeout: &second, EntryTimeout: &second,
		MountOptions: fuse.MountOptions{AllowOther: true, FsName: "loop", Name: "loop", MaxWrite: 1 << 20, DirectMount: true},
	})
	if err != nil {
		return err
	}
	server.Wait()
	return nil
}

type loopNode struct{ gofuse.LoopbackNode }

var (
	_ gofuse.NodeWrapChilder = (*loopNode)(nil)
	_ gofuse.NodeOpener      = (*loopNode)(nil)
	_ gofuse.NodeCreater     = (*loopNode)(nil)
)

// WrapChild implements gofuse.NodeWrapChilder.
func (n *loopNode) WrapChild(context.Context, gofuse.InodeEmbedder) gofuse.InodeEmbedder {
	return &loopNode{gofuse.LoopbackNode{RootData: n.RootData}}
}

// Open implements gofuse.NodeOpener.
func (n *loopNode) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	f, out, errno := n.LoopbackNode.Open(ctx, flags)
	return served(f), out, errno
}

// Create implements gofuse.NodeCreater.
func (n *loopNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	inode, f, open, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, served(f), open, errno
}

// loopFile is a file whose reads and writes come to this process.
type loopFile struct{ *gofuse.LoopbackFile }

func served(f gofuse.FileHandle) gofuse.FileHandle {
	if l, ok := f.(*gofuse.LoopbackFile); ok {
		return loopFile{l}
	}
	return f
}

// PassthroughFd implements gofuse.FilePassthroughFder.
func (loopFile) PassthroughFd() (int, bool) { return -1, false }
