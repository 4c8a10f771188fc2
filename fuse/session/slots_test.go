package session_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file kills a server at each step of a request's way. The test has the
// session's descriptor and the memfd, as the keeper does.

// serverEnv makes this binary a server; its value is a server.
const serverEnv = "HOLDFAST_TEST_SERVER"

type server struct {
	Init, Reply []byte
	// Dir is the tree's; what is run is logged there.
	Dir string
	// It kills itself at Point of a request of that Opcode.
	Point  string
	Opcode uint32
}

const (
	runLog = "runs"

	fuseForget  = 2
	fuseSetAttr = 4
	fuseUnlink  = 10
	fuseWrite   = 16
)

// logging is a tree that writes down what it runs.
type logging struct {
	*sessiontest.Tree
}

func (l logging) log(format string, args ...any) {
	f, err := os.OpenFile(filepath.Join(l.Dir, runLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err == nil {
		_, _ = fmt.Fprintf(f, format+"\n", args...)
		_ = f.Close()
	}
}

func (l logging) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	l.log("%d again=%d", fuseWrite, in.Unique>>63)
	return l.Tree.Write(cancel, in, data)
}

func (l logging) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	l.log("%d again=%d", fuseSetAttr, in.Unique>>63)
	return l.Tree.SetAttr(cancel, in, out)
}

func (l logging) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	l.log("%d again=%d", fuseUnlink, in.Unique>>63)
	return l.Tree.Unlink(cancel, in, name)
}

func (l logging) Forget(node, count uint64) {
	if node == sessiontest.MadeNode(1) {
		l.log("%d count=%d", fuseForget, count)
	}
}

// beServer serves descriptor 3 with the slots of descriptor 4 until it is killed.
func beServer(value string) error {
	var o server
	if err := json.Unmarshal([]byte(value), &o); err != nil {
		return err
	}
	slots, err := session.OpenSlots(4, session.SlotOptions{})
	if err != nil {
		return err
	}
	tree := sessiontest.New()
	tree.Dir = o.Dir
	s, err := session.New(logging{tree}, 3, o.Init, session.Options{InitReply: o.Reply, Slots: slots, Name: "vol"})
	if err != nil {
		return err
	}
	s.SetFault(func(point string, opcode uint32) {
		if point == o.Point && opcode == o.Opcode {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	})
	return s.Run(noContext())
}

// serveChild starts a server.
func (m *mounted) serveChild(t *testing.T, o server, memfd *os.File) *exec.Cmd {
	t.Helper()
	value, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe")
	c.Env = append(os.Environ(), serverEnv+"="+string(value))
	dup, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "/dev/fuse")
	defer f.Close()
	c.ExtraFiles = []*os.File{f, memfd}
	c.Stderr = t.Output()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

func newMemfd(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("holdfast-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "slots")
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestKilledAtEachStep(t *testing.T) {
	write := func(size int) func(dir string) error {
		return func(dir string) error {
			fd, err := unix.Open(filepath.Join(dir, sessiontest.MadeName(1)), unix.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			want := bytes.Repeat([]byte("x"), size)
			if n, err := unix.Pwrite(fd, want, 0); err != nil || n != size {
				return fmt.Errorf("%d bytes written: %w", n, err)
			}
			return nil
		}
	}
	truncate := func(dir string) error {
		return unix.Truncate(filepath.Join(dir, sessiontest.MadeName(1)), 1)
	}
	unlink := func(dir string) error {
		return unix.Unlink(filepath.Join(dir, sessiontest.MadeName(1)))
	}
	const once, again = "%d again=0\n", "%d again=1\n"
	for _, c := range []struct {
		name   string
		opcode uint32
		do     func(dir string) error
		points map[string]string // what is run, over both processes
	}{
		{"small write", fuseWrite, write(100), map[string]string{
			"read": again, "moved": again, "handle": again, "answer": once + again, "answered": once,
		}},
		{"large write", fuseWrite, write(500 << 10), map[string]string{
			"read": again, "handle": again, "answer": once + again, "answered": once,
		}},
		{"truncate", fuseSetAttr, truncate, map[string]string{
			"read": again, "moved": again, "answer": once + again, "answered": once,
		}},
		{"unlink", fuseUnlink, unlink, map[string]string{
			"read": again, "moved": again, "answer": once + again, "answered": once,
		}},
		{"forget", fuseForget, unlink, map[string]string{
			"read": "%d count=1\n", "forget": "",
		}},
	} {
		for point, want := range c.points {
			t.Run(c.name+"/"+point, func(t *testing.T) {
				m := mountHere(t)
				memfd := newMemfd(t)
				first, err := session.New(sessiontest.New(), m.fd, m.init, session.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if err := first.Accept(); err != nil {
					t.Fatal(err)
				}
				o := server{Init: m.init, Reply: first.InitReply(), Dir: t.TempDir(), Point: point, Opcode: c.opcode}
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(o.Dir, sessiontest.MadeName(1)), []byte("12345"), 0o600); err != nil {
					t.Fatal(err)
				}
				dies := m.serveChild(t, o, memfd)
				done := make(chan error, 1)
				go func() { done <- c.do(m.dir) }()
				died := make(chan error, 1)
				go func() { died <- dies.Wait() }()
				if err := expect(t, "the server's death", died); !strings.Contains(fmt.Sprint(err), "killed") {
					t.Fatalf("the server ended otherwise: %v", err)
				}
				o.Point = ""
				m.serveChild(t, o, memfd)
				if err := expect(t, "the answer", done); err != nil {
					t.Error(err)
				}
				want := strings.ReplaceAll(want, "%d", fmt.Sprint(c.opcode))
				got := ""
				runs := func() bool {
					b, _ := os.ReadFile(filepath.Join(o.Dir, runLog))
					got = ""
					for line := range strings.Lines(string(b)) {
						if strings.HasPrefix(line, fmt.Sprint(c.opcode)+" ") {
							got += line
						}
					}
					return got == want
				}
				if c.opcode == fuseForget { // which nobody waits for
					eventually(t, "the FORGET", runs)
				}
				// What was left is done before anything new.
				within(t, "stat", func() (os.FileInfo, error) { return os.Stat(filepath.Join(m.dir, sessiontest.Name(1))) })
				if !runs() {
					t.Errorf("run: %q, want %q", got, want)
				}
			})
		}
	}
}

// Slots that another version has written, or nobody, are refused and left as they
// are; those that were begun and not finished are begun anew.
func TestOpenSlotsRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(f *os.File) error
		kind  storage.Kind
	}{
		"another version":  {func(f *os.File) error { _, err := f.WriteAt([]byte{9}, 8); return err }, storage.Unsupported},
		"other sizes":      {func(f *os.File) error { _, err := f.WriteAt([]byte{9}, 12); return err }, storage.Unsupported},
		"no magic number":  {func(f *os.File) error { _, err := f.WriteAt([]byte{'X'}, 0); return err }, storage.Corrupt},
		"a size of 1":      {func(f *os.File) error { _, err := f.WriteAt([]byte{1, 0}, 16); return err }, storage.Corrupt},
		"cut off":          {func(f *os.File) error { return f.Truncate(1 << 20) }, storage.Corrupt},
		"begun, not ended": {func(f *os.File) error { _, err := f.WriteAt(make([]byte, 8), 0); return err }, storage.Kind(0)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newMemfd(t)
			p, err := session.OpenSlots(int(f.Fd()), session.SlotOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(f); err != nil {
				t.Fatal(err)
			}
			p, err = session.OpenSlots(int(f.Fd()), session.SlotOptions{})
			if strings.HasPrefix(name, "begun") {
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !storage.Is(err, c.kind) {
				t.Errorf("%v, want %v", err, c.kind)
			}
		})
	}
}

// A request that a predecessor left can be interrupted: the kernel knows it by
// another unique than the file system does.
func TestInterruptOfWhatWasLeft(t *testing.T) {
	m := mountHere(t)
	slots := m.slots(t)
	reading := make(chan struct{}, 10)
	var interrupted atomic.Int32
	hang := func(cancel <-chan struct{}, _ uint64) fuse.Status {
		reading <- struct{}{}
		<-cancel
		interrupted.Add(1)
		return fuse.EINTR
	}
	first := sessiontest.New()
	first.Direct, first.OnRead = true, hang
	s1, r1 := m.serve(t, first, session.Options{Drain: 1, Slots: slots, Name: "vol"})
	app := exec.CommandContext(t.Context(), "/proc/self/exe")
	app.Env = append(os.Environ(), "HOLDFAST_TEST_READ="+filepath.Join(m.dir, sessiontest.Name(1)))
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- app.Wait() }()
	expect(t, "the read", reading)
	// The interrupt is left, too: it is sent while nobody reads.
	r1.cancel()
	_ = r1.wait(t)
	if err := s1.Close(); err != nil {
		t.Fatal(err)
	}
	interrupted.Store(0)
	second := sessiontest.New()
	second.Direct, second.OnRead = true, hang
	s2, err := session.New(second, m.fd, m.init, session.Options{InitReply: s1.InitReply(), Slots: slots, Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s2.Run(t.Context()) }()
	t.Cleanup(func() {
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
		_ = s2.Close()
	})
	expect(t, "the read again", reading)
	if err := app.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = expect(t, "the application's end", exited)
	if interrupted.Load() != 1 {
		t.Errorf("%d handlers were interrupted", interrupted.Load())
	}
}

// What was left by another process is not mapped in this one; nobody is to read
// into it as it is.
func TestWhatWasLeftIsCold(t *testing.T) {
	f := newMemfd(t)
	open := func() *session.Slots {
		t.Helper()
		p, err := session.OpenSlots(int(f.Fd()), session.SlotOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := open()
	if err := first.Leave("vol", 500<<10); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open()
	second.Forget("other")
	if n := second.Left("vol"); n != 1 {
		t.Errorf("%d requests were left", n)
	}
	second.Forget("vol")
	if n := second.Left("vol"); n != 0 {
		t.Errorf("%d requests are left of a session that has ended", n)
	}
	if n := second.Idle(); n != 0 {
		t.Errorf("%d slots are taken for mapped", n)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
