package keeper_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file runs keepers and mounters as processes of their own: this binary, in
// another role. Only so can they be killed, and only so is the mounter without
// privileges.

const (
	// patience is how long a test waits for what takes milliseconds.
	patience = 30 * time.Second
	// mounterUID is nobody's.
	mounterUID = 65534
)

// roleEnv selects the role; its value is a role.
const roleEnv = "HOLDFAST_TEST_ROLE"

type role struct {
	Is string `json:"is"` // keeper, mounter or caller

	RunDir string   `json:"runDir"`
	Roots  []string `json:"roots,omitempty"`
	// NodeUID of the keeper.
	NodeUID int `json:"nodeUID,omitempty"`
	// Wait is the keeper's MounterWait.
	Wait time.Duration `json:"wait,omitempty"`

	// NoSlots makes a mounter read requests into memory of its own, KeepNoSlots a
	// keeper give none.
	NoSlots     bool `json:"noSlots,omitempty"`
	KeepNoSlots bool `json:"keepNoSlots,omitempty"`
	// NoResend keeps a mounter from having anything sent again.
	NoResend bool `json:"noResend,omitempty"`
	// Files is sessiontest.Tree's Dir.
	Files string `json:"files,omitempty"`
	// Replayed is the file in which a mounter counts.
	Replayed string `json:"replayed,omitempty"`

	// Target is what a caller mounts.
	Target string `json:"target,omitempty"`
}

func TestMain(m *testing.M) {
	value := os.Getenv(roleEnv)
	if value == "" {
		os.Exit(m.Run())
	}
	var r role
	if err := json.Unmarshal([]byte(value), &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("process", r.Is)
	var err error
	switch r.Is {
	case "keeper":
		err = beKeeper(r, log)
	case "mounter":
		err = beMounter(r, log)
	case "caller":
		err = beCaller(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, r.Is, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beKeeper(r role, log *slog.Logger) error {
	k, err := keeper.New(keeper.Options{
		Log: log, RunDir: r.RunDir, NodeUID: r.NodeUID, MounterUID: mounterUID, AllowRoots: r.Roots,
		NotifierThread: session.NotifierThread, MounterWait: r.Wait, NoSlots: r.KeepNoSlots,
	})
	if err != nil {
		return err
	}
	return k.Run(context.Background())
}

func beMounter(r role, log *slog.Logger) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", fmt.Sprintf("Uid:\t%d\t%[1]d\t%[1]d\t%[1]d", mounterUID)} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("the mounter is privileged: no %q", want)
		}
	}
	h := &handler{role: r, log: log, pools: session.NewPools(session.SlotOptions{}), sessions: make(map[string]*session.Session), die: make(map[string]string)}
	return keeper.Attach(context.Background(), keeper.MounterSocket(r.RunDir), h, keeper.AttachOptions{Log: log, Backoff: 50 * time.Millisecond})
}

// beCaller asks the keeper for one mount and prints the kind of the failure.
func beCaller(r role) error {
	err := keeper.NewNode(keeper.NodeSocket(r.RunDir)).Mount(context.Background(), keeper.MountRequest{ID: "caller", Target: r.Target})
	if err != nil {
		fmt.Printf("%s: %v\n", storage.KindOf(err), err)
		return nil
	}
	fmt.Println("mounted")
	return nil
}

// config is what the tests send to their mounter.
type config struct {
	// Fail makes Serve fail.
	Fail bool `json:"fail,omitempty"`
	// Uncached makes the kernel ask for everything each time.
	Uncached bool `json:"uncached,omitempty"`
	// Notify invalidates the data of files 0 and f1 all the time.
	Notify bool `json:"notify,omitempty"`
	// Die is a file that makes the mounter empty it and die when it is to end the
	// session, unless it is empty.
	Die string `json:"die,omitempty"`
	// Slow is what a read of file 1 takes.
	Slow time.Duration `json:"slow,omitempty"`
}

// handler serves trees.
type handler struct {
	role     role
	log      *slog.Logger
	pools    *session.Pools
	mu       sync.Mutex
	sessions map[string]*session.Session
	die      map[string]string
}

func (h *handler) Serve(ctx context.Context, g keeper.Grant) ([]byte, error) {
	var c config
	if len(g.Config) > 0 {
		if err := json.Unmarshal(g.Config, &c); err != nil {
			return nil, err
		}
	}
	if c.Fail {
		return nil, storage.Errorf(storage.Unsupported, "as the test wants")
	}
	tree := sessiontest.New()
	if c.Uncached {
		tree.Timeout = time.Nanosecond
	}
	tree.Dir = h.role.Files
	tree.OnRead = func(_ <-chan struct{}, node uint64) fuse.Status {
		if node == sessiontest.Node(1) {
			sleep(c.Slow)
		}
		return fuse.OK
	}
	o := session.Options{Log: h.log, InitReply: g.InitReply, Name: g.Serial, Resend: g.Resend && !h.role.NoResend, Replayed: h.replayed}
	if !h.role.NoSlots && g.Slots >= 0 {
		slots, err := h.pools.Open(g.Slots)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", keeper.ErrSlots, err)
		}
		o.Slots = slots
	}
	s, err := session.New(tree, g.FD, g.Init, o)
	if err != nil {
		return nil, err
	}
	if g.InitReply == nil {
		if err := s.Accept(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	h.mu.Lock()
	h.sessions[g.ID], h.die[g.ID] = s, c.Die
	h.mu.Unlock()
	go func() {
		if err := s.Run(context.WithoutCancel(ctx)); err == nil {
			g.Ended()
		}
	}()
	if c.Notify {
		go func() {
			for s.Notifier().InvalInode(sessiontest.Node(0), 0, 0) == nil && s.Notifier().InvalInode(sessiontest.MadeNode(1), 0, 0) == nil {
				sleep(100 * time.Microsecond)
			}
		}()
	}
	return s.InitReply(), nil
}

// replayed counts in a file, a byte for each: the next kill may come at once.
func (h *handler) replayed(opcode uint32) {
	if f, err := os.OpenFile(h.role.Replayed, os.O_WRONLY|os.O_APPEND, 0); err == nil {
		_, _ = f.Write([]byte{byte(opcode)})
		_ = f.Close()
	}
}

func (h *handler) Report(_ context.Context, id string) (json.RawMessage, error) {
	return json.Marshal(map[string]string{"id": id})
}

func (h *handler) End(_ context.Context, e keeper.Ending) error {
	id, serial := e.ID, e.Serial
	h.mu.Lock()
	die := h.die[id]
	h.mu.Unlock()
	if info, err := os.Stat(die); err == nil && info.Size() > 0 {
		_ = os.Truncate(die, 0)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	h.pools.Forget(serial)

	h.mu.Lock()
	s := h.sessions[id]
	delete(h.sessions, id)
	h.mu.Unlock()
	switch {
	case s == nil && len(e.Config) == 0:
		return storage.Errorf(storage.Invalid, "session %s: nobody says what it was", id)
	case s == nil:
		return nil
	}
	return s.Close()
}

// rig is a run folder with a keeper, a mounter, and directories to mount on.
type rig struct {
	t       *testing.T
	dir     string
	role    role
	node    *keeper.Node
	keeper  *child
	mounter *child
}

// child is a process of the test's.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  bytes.Buffer
}

// newRig makes the folders; the processes are started by the test.
func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting, and starting processes of another uid, needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dir, err := os.MkdirTemp("", "holdfast-keeper-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	r := &rig{t: t, dir: dir, node: keeper.NewNode(keeper.NodeSocket(run))}
	r.role = role{RunDir: run, Roots: []string{dir}}
	t.Cleanup(r.clean)
	return r
}

// up starts a keeper and a mounter.
func up(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.startKeeper()
	r.startMounter()
	return r
}

// clean leaves no process, mount or folder, whatever has failed. Folders are
// removed by rmdir, once no mount is in them.
func (r *rig) clean() {
	for _, c := range []*child{r.keeper, r.mounter} {
		if c != nil {
			c.kill(r.t)
		}
	}
	for _, m := range slices.Backward(r.mounts()) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			r.t.Errorf("detach %s: %v", m.Mountpoint, err)
		}
	}
	if left := r.mounts(); len(left) > 0 {
		r.t.Errorf("%d mounts are left", len(left))
		return
	}
	for _, name := range []string{"keeper-node.sock", "keeper-mounter.sock", "keeper.lock"} {
		_ = unix.Unlink(filepath.Join(r.role.RunDir, name))
	}
	entries, _ := os.ReadDir(r.dir)
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		if err := os.Remove(path); err != nil { // rmdir, or one file
			r.t.Error(err)
		}
	}
	if err := os.Remove(r.dir); err != nil {
		r.t.Error(err)
	}
}

// mounts are the mounts in the rig's folder.
func (r *rig) mounts() []*mountinfo.Info {
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(r.dir))
	if err != nil {
		r.t.Error(err)
	}
	return all
}

func (r *rig) start(is string, uid int) *child {
	r.t.Helper()
	as := r.role
	as.Is = is
	value, err := json.Marshal(as)
	if err != nil {
		r.t.Fatal(err)
	}
	// The test's binary lies where other users cannot go; the link can be
	// executed by all.
	c := &child{cmd: exec.CommandContext(context.WithoutCancel(r.t.Context()), "/proc/self/exe"), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), roleEnv+"="+string(value))
	c.cmd.Stderr = r.t.Output()
	c.cmd.Stdout = &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if uid == 0 {
		c.cmd.SysProcAttr = nil
	}
	if err := c.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait()
	}()
	return c
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	_ = c.cmd.Process.Kill()
	c.wait(t)
}

func (c *child) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Errorf("process %d does not end", c.cmd.Process.Pid)
	}
}

// startKeeper starts one and waits until it answers.
func (r *rig) startKeeper() {
	r.t.Helper()
	r.keeper = r.start("keeper", 0)
	r.eventually("the keeper answers", func() bool {
		_, err := r.node.Sessions(r.t.Context())
		return err == nil
	})
}

// startMounter starts one.
func (r *rig) startMounter() {
	r.t.Helper()
	r.mounter = r.start("mounter", mounterUID)
}

// target makes a directory to mount on.
func (r *rig) target(name string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// mount makes a session at a new directory.
func (r *rig) mount(id string, c config) string {
	r.t.Helper()
	target := r.target(id)
	r.must(r.node.Mount(r.t.Context(), request(id, target, c)))
	r.settle(target)
	return target
}

func (r *rig) settle(target string) {
	r.t.Helper()
	within(r.t, "settle", func() (int, error) { return 0, sessiontest.Settle(target, sessiontest.Name(0)) })
}

func request(id, target string, c config) keeper.MountRequest {
	b, _ := json.Marshal(c)
	return keeper.MountRequest{ID: id, Target: target, Config: b}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// want fails the test unless err is of that kind, and its text holds all of with.
func (r *rig) want(err error, kind storage.Kind, with ...string) {
	r.t.Helper()
	if !storage.Is(err, kind) {
		r.t.Fatalf("%v, want an error of kind %v", err, kind)
	}
	for _, w := range with {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("%q does not name %q", err, w)
		}
	}
}

// works checks that a session is served.
func (r *rig) works(target string, i int) {
	r.t.Helper()
	got := within(r.t, "read", func() (string, error) {
		b, err := os.ReadFile(filepath.Join(target, sessiontest.Name(i)))
		return string(b), err
	})
	if got != sessiontest.Content(i) {
		r.t.Errorf("read %q", got)
	}
}

func (r *rig) sessions() []keeper.SessionInfo {
	r.t.Helper()
	all, err := r.node.Sessions(r.t.Context())
	r.must(err)
	return all
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
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

// serving waits until all sessions are.
func (r *rig) serving() {
	r.t.Helper()
	r.eventually("the sessions are served", func() bool {
		all, err := r.node.Sessions(r.t.Context())
		return err == nil && len(all) > 0 && !slices.ContainsFunc(all, func(s keeper.SessionInfo) bool { return !s.Serving })
	})
}

// within fails the test when f takes too long; a mount may hang.
func within[T any](t *testing.T, what string, f func() (T, error)) T {
	t.Helper()
	v, err := try(t, what, f)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return v
}

func try[T any](t *testing.T, what string, f func() (T, error)) (T, error) {
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
		return r.v, r.err
	case <-time.After(patience):
		t.Fatalf("%s: no end", what)
		panic("unreachable")
	}
}
