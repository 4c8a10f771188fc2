package session_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
)

// promptTree answers at once when now is set, with a size that GetAttr does not say.
type promptTree struct {
	*sessiontest.Tree
	now          atomic.Bool
	prompt, slow atomic.Int32
}

const promptSize = 4711

func (p *promptTree) AttrNow(id uint64, out *fuse.AttrOut) bool {
	if !p.now.Load() {
		return false
	}
	p.prompt.Add(1)
	out.Attr = fuse.Attr{Ino: id, Mode: fuse.S_IFREG | 0o644, Nlink: 1, Size: promptSize}
	return true
}

func (p *promptTree) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	p.slow.Add(1)
	status := p.Tree.GetAttr(cancel, in, out)
	out.SetTimeout(0)
	return status
}

// Lookup implements fuse.RawFileSystem. The kernel keeps no attributes, so that it
// asks each time.
func (p *promptTree) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := p.Tree.Lookup(cancel, in, name, out)
	out.SetAttrTimeout(0)
	return status
}

// What can be said at once is, whole and to the right request; what cannot goes the
// long way.
func TestPrompt(t *testing.T) {
	m := mountHere(t)
	tree := &promptTree{Tree: sessiontest.New()}
	m.serve(t, tree, session.Options{})
	f := within(t, "open", func() (*os.File, error) { return os.Open(filepath.Join(m.dir, sessiontest.Name(100))) })
	t.Cleanup(func() { _ = f.Close() })
	size := func() int64 {
		t.Helper()
		return within(t, "stat", func() (os.FileInfo, error) { return f.Stat() }).Size()
	}
	if got := size(); got == promptSize || tree.slow.Load() == 0 {
		t.Errorf("the long way: %d bytes, %d calls", got, tree.slow.Load())
	}
	tree.now.Store(true)
	before := tree.slow.Load()
	for range 3 {
		if got := size(); got != promptSize {
			t.Errorf("at once: %d bytes", got)
		}
	}
	if tree.prompt.Load() < 3 || tree.slow.Load() != before {
		t.Errorf("%d answers at once, %d the long way", tree.prompt.Load(), tree.slow.Load()-before)
	}
	// The slot is the reader's again, and a request with content finds it empty.
	if err := within(t, "read", func() (error, error) {
		_, err := f.Read(make([]byte, 10))
		return err, nil
	}); err != nil {
		t.Error(err)
	}
}

// What a predecessor has left comes before anything that is new, at once or not.
func TestPromptWaitsForWhatWasLeft(t *testing.T) {
	m := mountHere(t)
	memfd := newMemfd(t)
	first := &promptTree{Tree: sessiontest.New()}
	hangs, release := make(chan struct{}, 1), make(chan struct{})
	first.OnWrite = func(<-chan struct{}, uint64, []byte) fuse.Status {
		hangs <- struct{}{}
		<-release
		return fuse.EIO // nobody is to see it
	}
	s1, r1 := m.serve(t, first, session.Options{Slots: openSlots(t, memfd), Name: "vol"})
	t.Cleanup(func() { close(release) })
	f := within(t, "open", func() (*os.File, error) {
		return os.OpenFile(filepath.Join(m.dir, sessiontest.Name(100)), os.O_RDWR, 0)
	})
	t.Cleanup(func() { _ = f.Close() })
	written := make(chan error, 1)
	go func() {
		_, err := f.WriteAt(make([]byte, 10), 0)
		written <- err
	}()
	expect(t, "the write", hangs)
	r1.cancel()
	if err := r1.wait(t); err == nil || errors.Is(err, os.ErrClosed) {
		t.Fatalf("Run: %v", err)
	}

	second := &promptTree{Tree: sessiontest.New()}
	second.now.Store(true)
	goOn := make(chan struct{})
	again := make(chan struct{}, 1)
	second.OnWrite = func(<-chan struct{}, uint64, []byte) fuse.Status {
		again <- struct{}{}
		<-goOn
		return fuse.OK
	}
	s2, err := session.New(second, m.fd, m.init, session.Options{InitReply: s1.InitReply(), Slots: openSlots(t, memfd), Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	const getAttr = 3
	moved := make(chan struct{}, 10)
	s2.SetFault(func(point string, opcode uint32) {
		if point == "moved" && opcode == getAttr {
			moved <- struct{}{}
		}
	})
	done := make(chan error, 1)
	go func() { done <- s2.Run(t.Context()) }()
	t.Cleanup(func() { _ = s2.Close() })
	free := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(free)
	expect(t, "the write again", again)
	asked := make(chan error, 1)
	go func() {
		_, err := f.Stat()
		asked <- err
	}()
	expect(t, "the question, the long way", moved)
	if n := second.prompt.Load(); n != 0 {
		t.Errorf("%d answers at once, before what was left", n)
	}
	free()
	if err := expect(t, "the write's answer", written); err != nil {
		t.Error(err)
	}
	if err := expect(t, "the answer", asked); err != nil {
		t.Error(err)
	}
}
