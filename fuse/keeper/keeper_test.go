package keeper_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// The mounter has uid 65534 and no capabilities: it checks that itself.
func TestMountAndUnmount(t *testing.T) {
	r := up(t)
	target := r.mount("one", config{})
	r.works(target, 1)
	// Again: nothing happens. With a difference: refused.
	r.must(r.node.Mount(t.Context(), request("one", target, config{})))
	other := r.target("other")
	r.want(r.node.Mount(t.Context(), request("one", other, config{})), storage.Exists, target)
	r.want(r.node.Mount(t.Context(), request("two", target, config{})), storage.Exists, "one")
	r.want(r.node.Mount(t.Context(), request("one", target, config{Uncached: true})), storage.Exists)

	m := r.mounts()
	if len(m) != 1 || m[0].FSType != "fuse.holdfast" || !strings.HasPrefix(m[0].Source, "holdfast:") || !strings.HasSuffix(m[0].Source, ":one") {
		t.Errorf("mountinfo: %+v", m)
	}
	for _, option := range []string{"nosuid", "nodev"} {
		if !strings.Contains(m[0].Options, option) {
			t.Errorf("the mount's options %q lack %s", m[0].Options, option)
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", m[0].Major, m[0].Minor)); err != nil || string(b) != "1024\n" {
		t.Errorf("read-ahead: %q, %v", b, err)
	}
	if s := r.sessions(); len(s) != 1 || s[0].ID != "one" || s[0].Target != target || !s[0].Serving || s[0].Dead || len(s[0].Binds) > 0 {
		t.Errorf("sessions: %+v", s)
	}

	r.must(r.node.Unmount(t.Context(), target))
	r.must(r.node.Unmount(t.Context(), target)) // not mounted: fine
	r.must(r.node.Unmount(t.Context(), filepath.Join(r.dir, "never")))
	if len(r.mounts())+len(r.sessions()) > 0 {
		t.Errorf("left: %v %v", r.mounts(), r.sessions())
	}
	// The id and the place are free again.
	r.must(r.node.Mount(t.Context(), request("one", other, config{})))
	r.must(r.node.Unmount(t.Context(), other))
}

func TestReadOnly(t *testing.T) {
	r := up(t)
	target := r.target("ro")
	q := request("ro", target, config{})
	q.ReadOnly = true
	r.must(r.node.Mount(t.Context(), q))
	r.settle(target)
	_, err := try(t, "write", func() (int, error) { return 0, os.WriteFile(filepath.Join(target, sessiontest.Name(1)), nil, 0o666) })
	if !strings.Contains(fmt.Sprint(err), "read-only") {
		t.Errorf("a write: %v", err)
	}
	bind := r.target("bind")
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "ro", Target: bind}))
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "ro", Target: bind}))
	r.must(r.node.Unmount(t.Context(), bind))
	r.must(r.node.Unmount(t.Context(), target))
}

func TestBinds(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	writable, readOnly, noExec := r.target("rw"), r.target("ro"), r.target("noexec")
	ro, inert := keeper.BindOptions{ReadOnly: true}, keeper.BindOptions{NoExec: true}
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: noExec, BindOptions: inert}))
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: noExec, BindOptions: inert}))
	r.want(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: noExec}), storage.Exists)
	var fs unix.Statfs_t
	if err := unix.Statfs(noExec, &fs); err != nil || fs.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("flags %x, %v: programs can be run", fs.Flags, err)
	}
	if all, err := r.node.Sessions(t.Context()); err != nil || len(all) != 1 || !slices.Equal(all[0].Binds, []string{noExec}) || !slices.Equal(all[0].BindOptions, []keeper.BindOptions{inert}) {
		t.Errorf("sessions: %+v, %v", all, err)
	}
	r.must(r.node.Unmount(t.Context(), noExec))
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: writable}))
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: readOnly, BindOptions: ro}))
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: readOnly, BindOptions: ro}))
	r.want(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: readOnly}), storage.Exists)
	r.want(r.node.Bind(t.Context(), keeper.BindRequest{ID: "none", Target: readOnly}), storage.NotFound)
	r.works(writable, 1)
	r.works(readOnly, 2)
	write := func(dir string) error {
		_, err := try(t, "write", func() (int, error) {
			return 0, os.WriteFile(filepath.Join(dir, sessiontest.Name(3)), []byte("x"), 0o666)
		})
		return err
	}
	r.must(write(writable))
	if err := write(readOnly); err == nil {
		t.Error("a read-only bind takes writes")
	}
	if s := r.sessions(); len(s) != 1 || len(s[0].Binds) != 2 {
		t.Errorf("sessions: %+v", s)
	}
	r.want(r.node.Unmount(t.Context(), target), storage.InUse, writable, readOnly)
	r.must(r.node.Unmount(t.Context(), writable))
	r.works(readOnly, 4)
	r.must(r.node.Unmount(t.Context(), readOnly))
	r.must(r.node.Unmount(t.Context(), target))
	if len(r.sessions()) > 0 {
		t.Error("the session has not ended")
	}
}

func TestBusy(t *testing.T) {
	r := up(t)
	target := r.mount("busy", config{})
	f := within(t, "open", func() (*os.File, error) { return os.Open(filepath.Join(target, sessiontest.Name(1))) })
	defer f.Close()
	r.want(r.node.Unmount(t.Context(), target), storage.InUse, target)
	r.works(target, 2)
	r.must(f.Close())
	r.must(r.node.Unmount(t.Context(), target))
}

func TestTargets(t *testing.T) {
	r := up(t)
	mount := func(target string) error { return r.node.Mount(t.Context(), request("x", target, config{})) }
	file := filepath.Join(r.dir, "file")
	r.must(os.WriteFile(file, nil, 0o644))
	r.want(mount(file), storage.NotDirectory, file)
	r.want(mount(filepath.Join(r.dir, "missing")), storage.NotFound)

	outside, err := os.MkdirTemp("", "holdfast-outside-")
	r.must(err)
	t.Cleanup(func() { r.must(os.Remove(outside)) })
	r.want(mount(outside), storage.Denied, outside)
	// r.dir itself is the root, not beneath it.
	r.want(mount(r.dir), storage.Denied)

	link := filepath.Join(r.dir, "link")
	r.must(os.Symlink(outside, link))
	r.want(mount(link), storage.Denied)
	inside := r.target("inside")
	r.must(os.Symlink(inside, filepath.Join(r.dir, "link2")))
	r.want(mount(filepath.Join(r.dir, "link2")), storage.Denied, "symbolic link")

	for _, bad := range []string{"", "relative", "/", r.dir + "/../x", r.dir + "/"} {
		r.want(mount(bad), storage.Invalid)
	}
	r.want(r.node.Mount(t.Context(), keeper.MountRequest{ID: "", Target: inside}), storage.Invalid)
	r.want(r.node.Mount(t.Context(), keeper.MountRequest{ID: "a b", Target: inside}), storage.Invalid)

	// What somebody else has mounted is neither covered nor unmounted.
	r.must(unix.Mount("none", inside, "tmpfs", 0, "size=4k"))
	r.want(mount(inside), storage.InUse, "tmpfs")
	r.want(r.node.Unmount(t.Context(), inside), storage.Denied, "tmpfs")
	r.must(unix.Unmount(inside, 0))
	if len(r.mounts())+len(r.sessions()) > 0 {
		t.Errorf("left: %v %v", r.mounts(), r.sessions())
	}
}

// A root that is reached over a symbolic link is the administrator's word.
func TestRootBehindLink(t *testing.T) {
	r := newRig(t)
	real := r.target("real")
	link := filepath.Join(r.dir, "way")
	r.must(os.Symlink(real, link))
	r.role.Roots = []string{link}
	r.startKeeper()
	r.startMounter()
	target := filepath.Join(link, "vol")
	r.must(os.Mkdir(target, 0o755))
	t.Cleanup(func() {
		_ = unix.Unmount(target, unix.MNT_DETACH)
		_ = os.Remove(target)
	})
	r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
	r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
	r.settle(target)
	r.works(target, 1)
	bind := filepath.Join(link, "bind")
	r.must(os.Mkdir(bind, 0o755))
	t.Cleanup(func() {
		_ = unix.Unmount(bind, unix.MNT_DETACH)
		_ = os.Remove(bind)
	})
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: bind}))
	r.must(r.node.Unmount(t.Context(), bind))
	r.must(r.node.Unmount(t.Context(), target))
	if len(r.mounts()) > 0 {
		t.Errorf("left: %v", r.mounts())
	}
}

func TestPeers(t *testing.T) {
	r := up(t)
	r.role.Target = r.target("x")
	call := func(uid int) string {
		t.Helper()
		c := r.start("caller", uid)
		c.wait(t)
		return c.out.String()
	}
	if got := call(1234); !strings.HasPrefix(got, "access denied") {
		t.Errorf("a stranger: %q", got)
	}
	// Even when the socket's mode would let it in.
	r.must(os.Chmod(keeper.NodeSocket(r.role.RunDir), 0o666))
	if got := call(1234); !strings.HasPrefix(got, "unavailable") {
		t.Errorf("a stranger through an open door: %q", got)
	}
	if got := call(mounterUID); !strings.HasPrefix(got, "unavailable") {
		t.Errorf("the mounter at the node's socket: %q", got)
	}
	if len(r.mounts()) > 0 {
		t.Error("somebody got a mount")
	}
}

// A node without root may mount on its own directories, and on no others.
func TestUnprivilegedNode(t *testing.T) {
	r := newRig(t)
	r.role.Roots, r.role.NodeUID = nil, 1234
	r.startKeeper()
	r.startMounter()
	call := func(target string) string {
		t.Helper()
		r.role.Target = target
		c := r.start("caller", 1234)
		c.wait(t)
		return c.out.String()
	}
	if got := call(r.target("roots")); !strings.HasPrefix(got, "access denied") {
		t.Errorf("on root's directory: %q", got)
	}
	own := r.target("own")
	r.must(os.Chown(own, 1234, 1234))
	if got := call(own); got != "mounted\n" {
		t.Errorf("on its own: %q", got)
	}
	r.must(r.node.Unmount(t.Context(), own))
}

// Without a mounter nothing is half-made.
func TestNoMounter(t *testing.T) {
	r := newRig(t)
	r.role.Wait = 50 * time.Millisecond
	r.startKeeper()
	target := r.target("x")
	r.want(r.node.Mount(t.Context(), request("x", target, config{})), storage.Unavailable)
	if len(r.mounts())+len(r.sessions()) > 0 {
		t.Errorf("left: %v %v", r.mounts(), r.sessions())
	}
}

func TestMounterRefuses(t *testing.T) {
	r := up(t)
	target := r.target("x")
	r.want(r.node.Mount(t.Context(), request("x", target, config{Fail: true})), storage.Unsupported, "as the test wants")
	if len(r.mounts())+len(r.sessions()) > 0 {
		t.Errorf("left: %v %v", r.mounts(), r.sessions())
	}
	r.must(r.node.Mount(t.Context(), request("x", target, config{})))
	r.must(r.node.Unmount(t.Context(), target))
}

// A label of SELinux cannot be had where the kernel has none; it is said, and nothing is
// mounted without it.
func TestSELinuxContext(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this kernel has SELinux: which contexts it takes is its policy's")
	}
	r := up(t)
	target := r.target("x")
	q := request("x", target, config{})
	q.Context = "system_u:object_r:container_file_t:s0:c144,c154"
	r.want(r.node.Mount(t.Context(), q), storage.Unsupported, q.Context, "SELinux")
	q.Context = strings.Repeat("x", 256)
	r.want(r.node.Mount(t.Context(), q), storage.Invalid, "256")
	if len(r.mounts())+len(r.sessions()) > 0 {
		t.Errorf("left: %v %v", r.mounts(), r.sessions())
	}
}

func TestShutdown(t *testing.T) {
	r := up(t)
	target := r.mount("x", config{})
	r.want(r.node.Shutdown(t.Context()), storage.InUse)
	r.must(r.node.Unmount(t.Context(), target))
	r.must(r.node.Shutdown(t.Context()))
	r.keeper.wait(t)
	if code := r.keeper.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the keeper's exit code is %d", code)
	}
	r.want(r.node.Shutdown(t.Context()), storage.Unavailable)
}

// A second keeper in the same folder would take the first one's sockets.
func TestSecondKeeper(t *testing.T) {
	r := up(t)
	second := r.start("keeper", 0)
	second.wait(t)
	if second.cmd.ProcessState.Success() {
		t.Error("it ran")
	}
	target := r.mount("x", config{})
	r.must(r.node.Unmount(t.Context(), target))
}

// Two installations side by side leave each other's mounts alone.
func TestSideBySide(t *testing.T) {
	a, b := up(t), newRig(t)
	b.role.Roots = []string{a.dir, b.dir}
	b.startKeeper()
	b.startMounter()
	target := a.mount("x", config{})
	b.want(b.node.Unmount(t.Context(), target), storage.Denied)
	if s := b.sessions(); len(s) > 0 {
		t.Errorf("one sees the other's: %+v", s)
	}
	a.keeper.kill(t)
	a.mounter.kill(t)
	if got, err := b.node.Reap(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("one reaped the other's: %v, %v", got, err)
	}
	a.startKeeper()
	if got, err := a.node.Reap(t.Context()); err != nil || len(got) != 1 || got[0] != target {
		t.Errorf("reaped: %v, %v", got, err)
	}
}

// Many sessions do not fit into one message.
func TestManySessions(t *testing.T) {
	r := up(t)
	const n = 5
	for i := range n {
		target := r.target(fmt.Sprint("v", i))
		q := request(fmt.Sprint("v", i), target, config{})
		q.Config = fmt.Appendf(nil, `{"padding":%q}`, strings.Repeat("x", 30<<10))
		r.must(r.node.Mount(t.Context(), q))
	}
	if s := r.sessions(); len(s) != n || s[n-1].ID != "v4" {
		t.Errorf("%d sessions", len(s))
	}
	q := request("big", r.target("big"), config{})
	q.Config = fmt.Appendf(nil, `%q`, strings.Repeat("x", 33<<10))
	r.want(r.node.Mount(t.Context(), q), storage.Invalid)
}

// The caller's deadline passes untouched.
func TestDeadline(t *testing.T) {
	r := newRig(t)
	r.startKeeper() // and no mounter: a mount waits
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := r.node.Mount(ctx, request("x", r.target("x"), config{}))
	if !storage.IsContext(err) && !storage.Is(err, storage.Unavailable) {
		t.Errorf("%v", err)
	}
}
