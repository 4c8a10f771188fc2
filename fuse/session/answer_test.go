package session_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
)

// Large reads that hang hold their memory, so there are only so many at a time.
// Others wait without any, can be interrupted, and keep no small one waiting.
func TestLargeAnswersAreBounded(t *testing.T) {
	m := mountHere(t)
	slots, err := session.NewSlots(session.SlotOptions{Answers: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slots.Close() })
	tree := sessiontest.New()
	tree.Direct = true
	const share = 2 // half of them
	var hanging atomic.Int32
	release, waits := make(chan struct{}), make(chan struct{}, 10)
	tree.OnRead = func(_ <-chan struct{}, node uint64) fuse.Status {
		if node != sessiontest.Node(1) {
			hanging.Add(1)
			<-release
		}
		return fuse.OK
	}
	s, err := session.New(tree, m.fd, m.init, session.Options{Slots: slots, Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetFault(func(point string, _ uint32) {
		if point == "room" {
			waits <- struct{}{}
		}
	})
	if err := s.Accept(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(func() {
		free()
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	within(t, "settle", func() (int, error) { return 0, sessiontest.Settle(m.dir, sessiontest.Name(0)) })

	pread := func(i, size int) (int, error) {
		fd, err := unix.Open(filepath.Join(m.dir, sessiontest.Name(i)), unix.O_RDONLY, 0)
		if err != nil {
			return 0, err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Pread(fd, make([]byte, size), 0)
	}
	read := make(chan error, share)
	for i := range share {
		go func() {
			_, err := pread(10+i, session.MaxWrite)
			read <- err
		}()
	}
	eventually(t, "the readers hang", func() bool { return hanging.Load() == share })
	app := exec.CommandContext(t.Context(), "dd", "if="+filepath.Join(m.dir, sessiontest.Name(20)), "of=/dev/null", "bs=1M", "count=1")
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- app.Wait() }()
	expect(t, "one more, which waits", waits)
	if n := within(t, "a small read beside them", func() (int, error) { return pread(1, 4096) }); n != len(sessiontest.Content(1)) {
		t.Errorf("%d bytes", n)
	}
	if err := app.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = expect(t, "the interrupted reader's end", exited)
	if n := hanging.Load(); n != share {
		t.Errorf("%d large answers in the making, want %d", n, share)
	}
	free()
	for range share {
		if err := expect(t, "a reader's end", read); err != nil {
			t.Error(err)
		}
	}
	// Their room is free again.
	within(t, "a large read after them", func() (int, error) { return pread(30, session.MaxWrite) })
}
