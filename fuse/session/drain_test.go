package session_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
)

// A process that ends in order waits for no handler that hangs, not even for one
// that does not heed its cancellation: its successor answers the application while
// the handler still hangs, and the handler's own answer is void.
func TestHandOverWaitsForNoHandler(t *testing.T) {
	m := mountHere(t)
	memfd := newMemfd(t)
	first := sessiontest.New()
	hangs, release, written := make(chan struct{}, 10), make(chan struct{}), make(chan error, 10)
	first.OnWrite = func(<-chan struct{}, uint64, []byte) fuse.Status {
		hangs <- struct{}{}
		<-release
		return fuse.EIO // nobody is to see it
	}
	s1, r1 := m.serve(t, first, session.Options{Slots: openSlots(t, memfd), Name: "vol"})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	for _, size := range []int{100, 500 << 10} { // small and large slots
		fd := within(t, "open", func() (int, error) {
			return unix.Open(filepath.Join(m.dir, sessiontest.Name(size)), unix.O_RDWR, 0)
		})
		t.Cleanup(func() { _ = unix.Close(fd) })
		go func() {
			_, err := unix.Pwrite(fd, make([]byte, size), 0)
			written <- err
		}()
		expect(t, "the write", hangs)
	}

	r1.cancel()
	if err := r1.wait(t); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}

	second := sessiontest.New()
	s2, err := session.New(second, m.fd, m.init, session.Options{InitReply: s1.InitReply(), Slots: openSlots(t, memfd), Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s2.Run(t.Context()) }()
	t.Cleanup(func() {
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		_ = s2.Close()
	})
	for range 2 {
		if err := expect(t, "the answer", written); err != nil {
			t.Errorf("a write that was under way: %v", err)
		}
	}
	free() // not before
	if err := s1.Close(); err != nil {
		t.Error(err)
	}
	if got := within(t, "read", func() (os.FileInfo, error) { return os.Stat(filepath.Join(m.dir, sessiontest.Name(100))) }); got.Size() < 100 {
		t.Errorf("%d bytes are there", got.Size())
	}
}
