package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file runs the real commands as processes: this binary, called as
// holdfast-mount.

const (
	patience   = 30 * time.Second
	mounterUID = 65534
	beMainEnv  = "HOLDFAST_TEST_MAIN"
)

func TestMain(m *testing.M) {
	if os.Getenv(beMainEnv) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !storage.IsContext(err) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rig is a folder with all that the two commands need.
type rig struct {
	t       *testing.T
	dir     string
	program string
	node    *keeper.Node
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the keeper mounts, and the mounter gets a uid of its own: that needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir, err := os.MkdirTemp("", "holdfast-mount-")
	must(t, err)
	r := &rig{t: t, dir: dir, program: filepath.Join(dir, "holdfast-mount")}
	t.Cleanup(r.clean)
	must(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"target", "state", "log"} {
		must(t, os.Mkdir(r.path(name), 0o755))
	}
	must(t, os.Chown(r.path("state"), mounterUID, mounterUID))
	must(t, os.Chown(r.path("log"), mounterUID, mounterUID))
	// The test's binary lies where no other user can go.
	self, err := os.Executable()
	must(t, err)
	must(t, copyFile(r.program, self))
	r.node = keeper.NewNode(keeper.NodeSocket(r.path("run")))
	return r
}

func (r *rig) path(elements ...string) string {
	return filepath.Join(append([]string{r.dir}, elements...)...)
}

// clean leaves nothing; a folder that is still mounted on is not entered.
func (r *rig) clean() {
	_ = unix.Unmount(r.path("target"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	cached, _ := filepath.Glob(r.path("state", "cache", "*"))
	for _, file := range cached {
		if err := os.Remove(file); err != nil {
			r.t.Error(err)
		}
	}
	for _, name := range []string{
		"run/keeper-node.sock", "run/keeper-mounter.sock", "run/keeper.lock", "run",
		"state/serve.lock", "state/volumes", "state/cache", "state",
		"log/mounter.log", "log/mounter-parent.log", "log/keeper.log", "log",
		"target", "holdfast-mount",
	} {
		if err := os.Remove(r.path(name)); err != nil && !os.IsNotExist(err) {
			r.t.Error(err)
		}
	}
	if err := os.Remove(r.dir); err != nil {
		r.t.Error(err)
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// process is one command that runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  bytes.Buffer
}

// start runs a command; it is killed, with what it has started, when the test
// ends.
func (r *rig) start(uid int, args ...string) *process {
	r.t.Helper()
	p := &process{cmd: exec.CommandContext(context.WithoutCancel(r.t.Context()), r.program, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), beMainEnv+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	must(r.t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	r.t.Cleanup(func() {
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL)
		p.wait(r.t)
		if r.t.Failed() {
			r.t.Logf("%v:\n%s", args, p.out.String())
		}
	})
	return p
}

func (p *process) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("process %d does not end", p.cmd.Process.Pid)
	}
}

// children returns the pids of a process's children.
func (p *process) children(t *testing.T) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	must(t, err)
	var pids []int
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for field := range strings.FieldsSeq(string(b)) {
			pid, err := strconv.Atoi(field)
			must(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func (r *rig) keeper() *process {
	r.t.Helper()
	p := r.start(0, "keeper", "--run-dir", r.path("run"), "--node-uid", "0", "--mounter-uid", fmt.Sprint(mounterUID),
		"--allow-root", r.dir, "--log-file", r.path("log", "keeper.log"))
	r.eventually("the keeper answers", func() bool {
		_, err := r.node.Sessions(r.t.Context())
		return err == nil
	})
	return p
}

func (r *rig) serve() *process {
	r.t.Helper()
	return r.start(mounterUID, "serve", "--run-dir", r.path("run"), "--state-dir", r.path("state"),
		"--filer", "127.0.0.1:1", "--log-file", r.path("log", "mounter.log"), "--log-level", "debug")
}

// worker returns the pid of the one child, once there is one.
func (r *rig) worker(parent *process) int {
	r.t.Helper()
	pid := 0
	r.eventually("there is one worker", func() bool {
		pids := parent.children(r.t)
		if len(pids) == 1 {
			pid = pids[0]
		}
		return len(pids) == 1
	})
	return pid
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("%s: did not come", what)
		}
	}
}

func (r *rig) mount(config string) error {
	return r.node.Mount(r.t.Context(), keeper.MountRequest{ID: "vol", Target: r.path("target"), Config: []byte(config)})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// There is no cluster here; the commands, the keeper and the sessions need none.
func TestCommands(t *testing.T) {
	r := newRig(t)
	r.keeper()
	parent := r.serve()
	if err := r.mount(`{"volume":"v","bucket":"NO"}`); !storage.Is(err, storage.Invalid) {
		t.Fatalf("a bad bucket: %v", err)
	}
	must(t, r.mount(`{"volume":"v","bucket":"some-bucket"}`))

	// No privileges in either of them, nor a way to get some.
	first := r.worker(parent)
	for _, pid := range []int{parent.cmd.Process.Pid, first} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		must(t, err)
		must(t, checkCapabilities(string(b)))
		if pid == first && !strings.Contains(string(b), "NoNewPrivs:\t1") {
			t.Errorf("process %d may get new privileges", pid)
		}
	}

	// A dead worker is replaced, and the next one is granted the session.
	for range 3 {
		old := r.worker(parent)
		must(t, unix.Kill(old, unix.SIGKILL))
		r.eventually("another worker serves", func() bool {
			pids := parent.children(t)
			s, err := r.node.Sessions(t.Context())
			return len(pids) == 1 && pids[0] != old && err == nil && len(s) == 1 && s[0].Serving
		})
	}

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.worker(parent)))
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssShmem") {
			t.Log("an idle worker with one volume: ", strings.TrimSpace(line))
		}
	}

	// A second parent has no business here.
	second := r.serve()
	second.wait(t)
	if second.cmd.ProcessState.Success() {
		t.Error("a second mounter runs in the same state folder")
	}

	// SIGTERM: the worker ends, the session lives on.
	must(t, parent.cmd.Process.Signal(syscall.SIGTERM))
	parent.wait(t)
	if code := parent.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM: %s", code, parent.out.String())
	}
	s, err := r.node.Sessions(t.Context())
	must(t, err)
	if len(s) != 1 || s[0].Serving || s[0].Dead {
		t.Errorf("after the mounter's end: %+v", s)
	}

	// SIGKILL of the parent ends its worker: the next parent finds the place free.
	parent = r.serve()
	r.eventually("the session is served", func() bool {
		s, err := r.node.Sessions(t.Context())
		return err == nil && len(s) == 1 && s[0].Serving
	})
	must(t, parent.cmd.Process.Kill())
	parent.wait(t)
	third := r.serve()
	r.eventually("the session is served again", func() bool {
		s, err := r.node.Sessions(t.Context())
		return err == nil && len(s) == 1 && s[0].Serving && len(third.children(t)) == 1
	})

	must(t, r.node.Unmount(t.Context(), r.path("target")))
	must(t, r.node.Shutdown(t.Context()))
}

// The keeper outlives the one that started it, and its terminal.
func TestKeeperStays(t *testing.T) {
	r := newRig(t)
	k := r.keeper()
	must(t, k.cmd.Process.Signal(syscall.SIGHUP))
	_, err := r.node.Sessions(t.Context())
	must(t, err)
	must(t, k.cmd.Process.Signal(syscall.SIGTERM))
	k.wait(t)
	if code := k.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	b, err := os.ReadFile(r.path("log", "keeper.log"))
	if err != nil || !bytes.Contains(b, []byte(`"process":"keeper"`)) {
		t.Errorf("log: %q, %v", b, err)
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	must(t, run(t.Context(), []string{"version"}, &out, io.Discard))
	if !strings.HasPrefix(out.String(), "holdfast-mount ") {
		t.Errorf("%q", out.String())
	}
}
