package csisanity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
)

// untouched wants that a failed start has left nothing.
func (in *installation) untouched(t *testing.T) {
	t.Helper()
	if err := in.nothingLeft(); err != nil {
		t.Errorf("a start that failed has left something: %v", err)
	}
}

func (in *installation) upArgs() []string { return []string{"up", "--port-base", fmt.Sprint(in.base)} }

func TestNoFuse(t *testing.T) {
	in := begin(t)
	// In a mount namespace of its own /dev/fuse is covered by a plain file.
	cover := filepath.Join(in.work, "no-fuse")
	if err := os.WriteFile(cover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := `umount -alt fuse.holdfast; mount --bind "$0" /dev/fuse && exec setpriv --reuid="$1" --regid="$2" --clear-groups env HOLDFAST_STATE="$3" "$4" up --port-base "$5"`
	out, err := finish(asRoot("unshare", "--mount", "sh", "-c", script,
		cover, fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid()), in.dir, filepath.Join(bin, "holdfast"), fmt.Sprint(in.base)))
	if err == nil || !strings.Contains(out.stderr, "holdfast: FUSE: ") || !strings.Contains(out.stderr, "modprobe fuse") {
		t.Errorf("up without FUSE: %v", err)
	}
	in.untouched(t)
	if _, err := os.Stat(in.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("up without FUSE made the state folder: %v", err)
	}
}

func TestNoWeed(t *testing.T) {
	small := filepath.Join(t.TempDir(), "weed")
	if err := os.WriteFile(small, []byte("#!/bin/sh\necho 'version 30GB 4.48 abcdef0 linux amd64'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		environment []string
		words       []string
	}{
		"named and missing": {[]string{"HOLDFAST_WEED=/nowhere/weed"}, []string{"/nowhere/weed"}},
		"another program":   {[]string{"HOLDFAST_WEED=/bin/true"}, []string{"/bin/true", "version"}},
		"another build":     {[]string{"HOLDFAST_WEED=" + small}, []string{small, "30GB 4.48", "8000GB 4.48"}},
		"nowhere":           {[]string{"HOLDFAST_WEED=", "HOLDFAST_CACHE=/nowhere/cache", "PATH=/nowhere"}, []string{"HOLDFAST_WEED", "python3"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := begin(t)
			in.environment = c.environment
			if name == "nowhere" && os.Getuid() != 0 {
				in.environment[2] = "PATH=" + sudoOnly(t)
			}
			in.fails(t, in.upArgs(), c.words...)
			in.environment = nil
			in.untouched(t)
		})
	}
}

// A folder that a weed of another build has written is refused and left as it is.
func TestFolderOfAnotherBuild(t *testing.T) {
	in := begin(t)
	mark := filepath.Join(in.dir, "cluster", "VERSION")
	if err := os.MkdirAll(filepath.Dir(mark), 0o755); err != nil {
		t.Fatal(err)
	}
	const build = "30GB 4.48\n"
	if err := os.WriteFile(mark, []byte(build), 0o644); err != nil {
		t.Fatal(err)
	}
	in.fails(t, in.upArgs(), filepath.Dir(mark), "30GB 4.48", "8000GB 4.48", "must not open its data")
	in.untouched(t)
	if err := sameContent(mark, build); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Dir(mark))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "VERSION" && e.Name() != "lock" {
			t.Errorf("the refused start has made %s", e.Name())
		}
	}
}

// sudoOnly is a folder with sudo and nothing else.
func sudoOnly(t *testing.T) string {
	t.Helper()
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(sudo, filepath.Join(dir, "sudo")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPortTaken(t *testing.T) {
	in := begin(t)
	taken, err := listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", in.base+8))
	if err != nil {
		t.Fatal(err)
	}
	in.fails(t, in.upArgs(), fmt.Sprint(in.base+8))
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	in.untouched(t)
}

// Without --port-base a taken port moves all of them, which is said and
// remembered. Two installations run side by side.
func TestTwoInstallations(t *testing.T) {
	first := shared(t)
	second := beginAlone(t)
	// The second remembers the first one's ports.
	if err := os.Mkdir(second.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(second.dir, "config.json"), fmt.Appendf(nil, `{"port_base": %d}`, first.base), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := second.run(t.Context(), "up")
	if err != nil {
		t.Fatal(err)
	}
	s := second.mustStatus(t)
	second.release()
	second.base, second.release = s.PortBase, func() {}
	if s.PortBase == first.base || !strings.Contains(out.stderr, fmt.Sprint(s.PortBase)) {
		t.Errorf("the ports moved from %d to %d, and it said %q", first.base, s.PortBase, out.stderr)
	}
	name := volumeName(t)
	one, two := first.create(t, name), second.create(t, name)
	for i, v := range []*volume{one, two} {
		dir := v.mount(t)
		if err := os.WriteFile(filepath.Join(dir, "which"), fmt.Append(nil, i), 0o600); err != nil {
			t.Fatal(err)
		}
		v.remount(t, dir)
		if err := sameContent(filepath.Join(dir, "which"), fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
	}
	second.mustDown(t)
	if err := second.nothingLeft(); err != nil {
		t.Error(err)
	}
	second.must(t, "up")
	if again := second.mustStatus(t).PortBase; again != s.PortBase {
		t.Errorf("the ports from %d were not remembered: now %d", s.PortBase, again)
	}
	if first.mustStatus(t).Phase != "ready" {
		t.Error("the first installation was touched")
	}
}

func TestBadInput(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"volume", "create"}, []string{"NAME"}},
		{[]string{"volume", "create", "x"}, []string{"--size"}},
		{[]string{"volume", "create", "x", "--size", "ten"}, []string{"ten", "1Gi"}},
		{[]string{"volume", "create", "x", "--size", "0"}, []string{"zero"}},
		{[]string{"volume", "create", "x", "--size", "-1Gi"}, []string{"-1Gi"}},
		{[]string{"volume", "create", "x", "--size", "99999999Ti"}, []string{"large"}},
		{[]string{"volume", "create", "", "--size", "1Gi"}, []string{"name"}},
		{[]string{"volume", "create", strings.Repeat("x", 200), "--size", "1Gi"}, []string{"128"}},
		{[]string{"volume", "create", "a\nb", "--size", "1Gi"}, []string{"name"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "--access", "mine"}, []string{"shared", "single", "read-only"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "-p", "nonsense"}, []string{"name=value"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "-p", "no.such=parameter"}, []string{"no.such"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "--param", "bucketNme=x"}, []string{"bucketNme", "bucketName"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "--param", "onDelete=keep"}, []string{"keep", "delete, retain or archive"}},
		{[]string{"volume", "create", "x", "--size", "1Gi", "--param", "cacheDir=/tmp"}, []string{"cacheDir", "seaweedfs-csi-driver", "--cache-dir"}},
		{[]string{"volume", "create", v.name, "--size", "1Gi"}, []string{v.name}},
		{[]string{"volume", "create", v.name, "--size", "10Gi", "--access", "single"}, []string{v.name}},
		{[]string{"volume", "expand", v.name, "--size", "1Gi"}, []string{"shrink"}},
		{[]string{"volume", "describe", "no-such"}, []string{"no-such"}},
		{[]string{"volume", "delete", "no-such", "--yes"}, []string{"no-such"}},
		{[]string{"volume", "delete", v.name}, []string{"--yes"}},
		{[]string{"volume", "expand", "no-such", "--size", "20Gi"}, []string{"no-such"}},
		{[]string{"volume", "credentials", "no-such"}, []string{"no-such"}},
		{[]string{"volume", "credentials", v.name, "--format", "xml"}, []string{"env", "json"}},
		{[]string{"volume", "list", "-o", "xml"}, []string{"json"}},
		{[]string{"volume", "unmount", in.work}, []string{in.work}},
		{[]string{"volume", "frobnicate"}, []string{"frobnicate"}},
		{[]string{"frobnicate"}, []string{"frobnicate"}},
		{[]string{"up", "--frobnicate"}, []string{"--frobnicate", "--help"}},
		{[]string{"up", "--port-base", "70000"}, []string{"70000"}},
	} {
		in.fails(t, c.args, c.words...)
	}
	if list := in.must(t, "volume", "list"); strings.Contains(list, "\nx ") {
		t.Errorf("a refused creation has left a volume:\n%s", list)
	}
}

func TestBadTarget(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	dir := filepath.Join(in.work, volumeName(t))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.fails(t, []string{"volume", "mount", "no-such", filepath.Join(dir, "x")}, "no-such")
	in.fails(t, []string{"volume", "mount", v.name, file}, file, "is a file")
	in.fails(t, []string{"volume", "mount", v.name, filepath.Join(file, "below")}, file)
	in.fails(t, []string{"volume", "mount", v.name, filepath.Join(dir, "missing", "x")}, "parent")
	in.fails(t, []string{"volume", "mount", v.name, dir}, dir, "not empty")
	in.fails(t, []string{"volume", "mount", v.name, "/proc"}, "/proc")
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file has changed: %q, %v", b, err)
	}
	if mounts, err := mountsBelow(filepath.Dir(in.dir)); err != nil || len(mounts) > 0 {
		t.Errorf("a refused mount has left %v (%v)", mounts, err)
	}
	if s := in.mustStatus(t); len(s.Mounts) > 0 {
		t.Errorf("a refused mount is recorded: %v", s.Mounts)
	}
	// Mounted twice at one place is fine, another volume there is not.
	to := v.mount(t)
	in.must(t, "volume", "mount", v.name, to)
	other := in.create(t, volumeName(t)+"-other")
	in.fails(t, []string{"volume", "mount", other.name, to}, v.name, to)
}

func TestBusyMount(t *testing.T) {
	in := startState(t)
	one, two := in.create(t, "aa-first"), in.create(t, "zz-busy")
	free, busy := one.mount(t), two.mount(t)
	worker := exec.CommandContext(t.Context(), "sleep", "600")
	worker.Dir = busy
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = worker.Process.Kill()
		_ = worker.Wait()
	}()
	pid := fmt.Sprint(worker.Process.Pid)
	in.fails(t, []string{"volume", "unmount", busy}, busy, "sleep", pid)
	in.fails(t, []string{"volume", "delete", two.name, "--yes"}, two.name, busy)
	in.fails(t, []string{"down"}, busy, "sleep", pid)
	s := in.mustStatus(t)
	if s.Phase != "ready" || len(s.Mounts) != 2 {
		t.Errorf("a down that failed left %s with %d mounts", s.Phase, len(s.Mounts))
	}
	for _, dir := range []string{free, busy} {
		if err := os.WriteFile(filepath.Join(dir, "works"), nil, 0o600); err != nil {
			t.Errorf("after a down that failed: %v", err)
		}
		if mounts, err := mountsBelow(dir); err != nil || len(mounts) != 1 {
			t.Errorf("%s is mounted %d times (%v)", dir, len(mounts), err)
		}
	}
	// The driver itself refuses too, whoever asks.
	if code := deleteOverCSI(t, s.Endpoints.Controller, one.Bucket); code != codes.FailedPrecondition {
		t.Errorf("DeleteVolume of a mounted volume: %v, want FailedPrecondition", code)
	}
	if code := deleteOverCSI(t, s.Endpoints.Controller, "no-such-volume"); code != codes.OK {
		t.Errorf("DeleteVolume of no volume: %v, want OK", code)
	}
}

// deleteOverCSI asks the controller to delete a volume by its id.
func deleteOverCSI(t *testing.T, socket, id string) codes.Code {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = csi.NewControllerClient(conn).DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
	return grpcstatus.Code(err)
}

// While the cluster does not answer, a creation fails in time and says why; when
// it answers again, repeating it makes the volume whole.
func TestClusterDown(t *testing.T) {
	in := startState(t)
	filer := in.mustStatus(t).component(t, "filer")
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(filer.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	in.fails(t, []string{"volume", "create", "late", "--size", "1Gi"}, "cluster does not answer")
	signal(syscall.SIGCONT)
	v := in.create(t, "late")
	v.put(t, "object", "content")
	if err := sameContent(filepath.Join(v.mount(t), "object"), "content"); err != nil {
		t.Error(err)
	}
}
