package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// patience is how long a test waits for what takes milliseconds.
const patience = 20 * time.Second

// TestMain: in the role "reader" this binary is an application that reads one
// file, to be signalled.
func TestMain(m *testing.M) {
	if path := os.Getenv("HOLDFAST_TEST_READ"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			os.Exit(3)
		}
		fmt.Println("open")
		_, err = f.Read(make([]byte, 10))
		fmt.Println("read", err)
		os.Exit(0)
	}
	if value := os.Getenv(serverEnv); value != "" {
		fmt.Fprintln(os.Stderr, beServer(value))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// noContext is for a process that is killed.
func noContext() context.Context { return context.Background() }

// mounted is a mount of the kernel's with nobody serving it.
type mounted struct {
	dir  string
	fd   int
	init []byte
}

func mountHere(t *testing.T) *mounted {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, err := os.MkdirTemp("", "holdfast-session-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("rmdir %s: %v", dir, err)
		}
	})
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, session.MaxWrite)
	if err := unix.Mount("holdfast-test", dir, "fuse.holdfast-test", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatalf("read INIT: %v", err)
	}
	return &mounted{dir: dir, fd: fd, init: buf[:n]}
}

// serve makes a session and runs it until the test ends.
func (m *mounted) serve(t *testing.T, raw fuse.RawFileSystem, opts session.Options) (*session.Session, *running) {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	first := opts.InitReply == nil
	s, err := session.New(raw, m.fd, m.init, opts)
	if err != nil {
		t.Fatal(err)
	}
	if first {
		if err := s.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	within(t, "settle", func() (int, error) { return 0, sessiontest.Settle(m.dir, sessiontest.Name(0)) })
	return s, r
}

// slots makes a pool that lives as long as the mount.
func (m *mounted) slots(t *testing.T) *session.Slots {
	t.Helper()
	p, err := session.NewSlots(session.SlotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// openSlots maps a pool as a process does that may have a predecessor.
func openSlots(t *testing.T, memfd *os.File) *session.Slots {
	t.Helper()
	p, err := session.OpenSlots(int(memfd.Fd()), session.SlotOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

type running struct {
	cancel context.CancelFunc
	done   chan error
}

// wait returns what Run returned.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("Run did not return")
		return nil
	}
}

// within fails the test when f takes too long; the mount may hang.
func within[T any](t *testing.T, what string, f func() (T, error)) T {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	c := make(chan result, 1)
	go func() {
		v, err := f()
		c <- result{v, err}
	}()
	select {
	case r := <-c:
		if r.err != nil {
			t.Fatalf("%s: %v", what, r.err)
		}
		return r.v
	case <-time.After(patience):
		t.Fatalf("%s: no end", what)
		panic("unreachable")
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: did not come", what)
		}
	}
}

func read(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		return string(b), err
	}
}

func TestServesFiles(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	_, r := m.serve(t, tree, session.Options{})
	if got := within(t, "read", read(filepath.Join(m.dir, sessiontest.Name(7)))); got != sessiontest.Content(7) {
		t.Errorf("read %q", got)
	}
	entries := within(t, "list", func() ([]os.DirEntry, error) { return os.ReadDir(m.dir) })
	if len(entries) != 3 {
		t.Errorf("listed %d entries", len(entries))
	}
	// More than one request, larger than any that is copied out.
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	path := filepath.Join(m.dir, sessiontest.Name(8))
	within(t, "write", func() (int, error) { return 0, os.WriteFile(path, big, 0o666) })
	if got := within(t, "read back", read(path)); got != string(big) {
		t.Errorf("read back %d bytes, and not the same", len(got))
	}
	within(t, "unmount", func() (int, error) { return 0, unix.Unmount(m.dir, 0) })
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if !tree.Ended() {
		t.Error("OnUnmount was not called")
	}
}

func expect[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: did not come", what)
		panic("unreachable")
	}
}

// Handlers that hang do not keep others, nor an INTERRUPT, from being read.
func TestSlowHandlersStarveNobody(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	release := make(chan struct{})
	var hanging, interrupted atomic.Int32
	tree.OnWrite = func(cancel <-chan struct{}, node uint64, _ []byte) fuse.Status {
		if node == sessiontest.Node(2) {
			return fuse.OK
		}
		hanging.Add(1)
		select {
		case <-release:
		case <-cancel:
			interrupted.Add(1)
			return fuse.EINTR
		}
		return fuse.OK
	}
	slots, err := session.NewSlots(session.SlotOptions{Large: 80})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slots.Close() })
	m.serve(t, tree, session.Options{Slots: slots})

	const writers = 40 // half of the pool, all that one session may hold
	block := make([]byte, session.MaxWrite)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			f, err := os.OpenFile(filepath.Join(m.dir, sessiontest.Name(100+i)), os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if _, err := f.Write(block); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the writers hang", func() bool { return hanging.Load() == writers })
	if got := within(t, "read beside them", read(filepath.Join(m.dir, sessiontest.Name(1)))); got != sessiontest.Content(1) {
		t.Errorf("read %q", got)
	}
	within(t, "a small write beside them", func() (int, error) {
		return 0, os.WriteFile(filepath.Join(m.dir, sessiontest.Name(2)), []byte("x"), 0o666)
	})
	// One more large write than there is room for: it waits, and is not lost.
	app := exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+filepath.Join(m.dir, sessiontest.Name(3)), "bs=4k", "count=1", "conv=notrunc")
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- app.Wait() }()
	eventually(t, "the small writer hangs", func() bool { return hanging.Load() == writers+1 })
	if err := app.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = expect(t, "the interrupted writer's end", exited)
	if interrupted.Load() != 1 {
		t.Errorf("%d handlers were interrupted", interrupted.Load())
	}
	close(release)
	wg.Wait()
}

// What the kernel has cached it asks for again once told to.
func TestNotifications(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	s, _ := m.serve(t, tree, session.Options{})
	path, name := filepath.Join(m.dir, sessiontest.Name(5)), sessiontest.Name(5)
	stat := func() {
		t.Helper()
		within(t, "stat", func() (os.FileInfo, error) { return os.Stat(path) })
	}
	stat()
	stat()
	if n := tree.Lookups(name); n != 1 {
		t.Fatalf("%d lookups of a name that is cached for an hour", n)
	}
	if err := s.InvalEntry(fuse.FUSE_ROOT_ID, name); err != nil {
		t.Fatal(err)
	}
	stat()
	if n := tree.Lookups(name); n != 2 {
		t.Errorf("%d lookups after InvalEntry", n)
	}
	if err := s.Delete(fuse.FUSE_ROOT_ID, sessiontest.Node(5), name); err != nil {
		t.Fatal(err)
	}
	stat()
	if n := tree.Lookups(name); n != 3 {
		t.Errorf("%d lookups after Delete", n)
	}
	switch err := s.IncEpoch(); {
	case storage.Is(err, storage.Unsupported):
		t.Log("this kernel has no epochs")
	case err != nil:
		t.Error(err)
	default:
		stat()
		if n := tree.Lookups(name); n != 4 {
			t.Errorf("%d lookups after IncEpoch", n)
		}
	}

	if got := within(t, "read", read(path)); got != sessiontest.Content(5) {
		t.Fatalf("read %q", got)
	}
	changed := "CONTENT OF FILE 5\n" // of the same length: the kernel cannot see it
	tree.Set(5, changed)
	if err := s.InvalInode(sessiontest.Node(5), 0, 0); err != nil {
		t.Fatal(err)
	}
	if got := within(t, "read again", read(path)); got != changed {
		t.Errorf("after InvalInode: %q", got)
	}

	// What the kernel does not know is fine.
	for _, err := range []error{
		s.InvalInode(4711, 0, 0), s.InvalEntry(4711, "x"), s.InvalEntry(fuse.FUSE_ROOT_ID, "unknown"),
		s.Delete(fuse.FUSE_ROOT_ID, 4711, "unknown"),
	} {
		if err != nil {
			t.Errorf("a notification of something unknown: %v", err)
		}
	}
}

// The queue sends, and its thread can be told from others.
func TestNotifier(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	s, _ := m.serve(t, tree, session.Options{})
	name := sessiontest.Name(6)
	lookup := func() {
		t.Helper()
		within(t, "stat", func() (os.FileInfo, error) { return os.Stat(filepath.Join(m.dir, name)) })
	}
	lookup()
	if err := s.Notifier().InvalEntry(fuse.FUSE_ROOT_ID, name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the name is looked up again", func() bool {
		lookup()
		return tree.Lookups(name) > 1
	})
	eventually(t, "one thread has the name", func() bool {
		threads, err := filepath.Glob("/proc/self/task/*/comm")
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for _, f := range threads {
			if comm, err := os.ReadFile(f); err == nil && string(comm) == session.NotifierThread+"\n" {
				named++
			}
		}
		return named == 1
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Notifier().InvalEntry(1, "x"); !storage.Is(err, storage.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// A successor serves what a predecessor left, an open file and an unanswered
// request included: from the slots, or, where it has none of them, because the
// kernel sends it again.
func TestTakeOver(t *testing.T) {
	for _, resend := range []bool{false, true} {
		t.Run(fmt.Sprintf("resend=%v", resend), func(t *testing.T) { takeOver(t, resend) })
	}
}

func takeOver(t *testing.T, resend bool) {
	m := mountHere(t)
	var slots *session.Slots
	if !resend {
		slots = m.slots(t)
	}
	first := sessiontest.New()
	reading := make(chan struct{}, 10)
	first.OnRead = func(cancel <-chan struct{}, _ uint64) fuse.Status {
		reading <- struct{}{}
		<-cancel
		return fuse.EINTR // never to be seen by the application
	}
	s1, r1 := m.serve(t, first, session.Options{Drain: 50 * time.Millisecond, Slots: slots, Name: "vol"})
	f := within(t, "open", func() (*os.File, error) { return os.Open(filepath.Join(m.dir, sessiontest.Name(9))) })
	defer f.Close()
	got := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(f)
		got <- fmt.Sprint(string(b), err)
	}()
	expect(t, "the read", reading)
	r1.cancel()
	if err := r1.wait(t); !errors.Is(err, context.Canceled) {
		t.Fatalf("Run: %v", err)
	}
	if err := s1.Close(); err != nil {
		t.Fatal(err)
	}

	second := sessiontest.New()
	var replayed atomic.Int32
	s2, err := session.New(second, m.fd, m.init, session.Options{
		InitReply: s1.InitReply(), Slots: slots, Name: "vol", Resend: resend,
		Replayed: func(uint32) { replayed.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s2.InitReply(), s1.InitReply()) {
		t.Error("the successor's INIT answer is another one")
	}
	if resend {
		if err := s2.AskAgain(); storage.Is(err, storage.Unsupported) {
			t.Skip("this kernel cannot resend (6.9)")
		}
	}
	done := make(chan error, 1)
	go func() { done <- s2.Run(t.Context()) }()
	t.Cleanup(func() {
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		_ = s2.Close()
	})
	if text := expect(t, "the read's answer", got); text != sessiontest.Content(9)+"<nil>" {
		t.Errorf("the read that was under way: %q", text)
	}
	if n := replayed.Load(); resend != (n == 0) {
		t.Errorf("%d requests were found in slots", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "unmount", func() (int, error) { return 0, unix.Unmount(m.dir, 0) })
	if err := expect(t, "the end of Run", done); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// The end of the session releases handlers that wait.
func TestUnmountReleasesHandlers(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	reading := make(chan struct{}, 10)
	tree.OnRead = func(cancel <-chan struct{}, _ uint64) fuse.Status {
		reading <- struct{}{}
		<-cancel
		return fuse.EINTR
	}
	_, r := m.serve(t, tree, session.Options{})
	go func() { _, _ = os.ReadFile(filepath.Join(m.dir, sessiontest.Name(1))) }()
	expect(t, "the read", reading)
	// What umount -f does.
	if err := unix.Unmount(m.dir, unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	if err := r.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	tree := sessiontest.New()
	for name, c := range map[string]struct {
		init, reply []byte
		kind        storage.Kind
	}{
		"no INIT":      {init: []byte("hello"), kind: storage.Invalid},
		"short answer": {init: initRequest(), reply: []byte("x"), kind: storage.Invalid},
		"capabilities that this version does not know": {init: initRequest(), reply: initReply(1<<20, 1<<50), kind: storage.Unsupported},
		"larger writes": {init: initRequest(), reply: initReply(4<<20, 0), kind: storage.Unsupported},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := session.New(tree, -1, c.init, session.Options{InitReply: c.reply}); !storage.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
		})
	}
}
