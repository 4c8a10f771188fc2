package csisanity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

// firstID is who root of the user namespace is outside.
const firstID = 100000

// idMapped gives a directory that shows the mount at dir to a user namespace, as a
// container runtime does for a pod with hostUsers: false.
func (in *installation) idMapped(t *testing.T, dir string) string {
	t.Helper()
	holder := exec.CommandContext(t.Context(), "sleep", "infinity")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = users.Close() }()

	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(tree) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		t.Fatalf("the kernel maps no ids for a mount of Holdfast: %v", err)
	}
	at := filepath.Join(in.work, filepath.Base(t.Name())+"-mapped")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(at, 0), os.Remove(at)); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	})
	return at
}

// kernelRelease is major and minor.
func kernelRelease(t *testing.T) (release [2]int) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &release[0], &release[1]); err != nil {
		t.Fatal(err)
	}
	return release
}

// A pod with a user namespace of its own has its volume by an ID-mapped mount: its root
// makes files that are root's in the volume, and one who is nobody there makes none.
func TestIDMappedMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a user namespace with more than one user needs root")
	}
	if release := kernelRelease(t); release[0] < 6 || release[0] == 6 && release[1] < 12 {
		t.Skip("FUSE has ID-mapped mounts from Linux 6.12 on")
	}
	in := shared(t)
	v := in.create(t, volumeName(t))
	s := v.stageFor(t, in.nodeService(t), capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER))
	dir := s.mustPublish(t, "pod", false)
	defer func() {
		s.unpublish(t, dir)
		s.unstage(t)
	}()
	t.Run("idmapped", func(t *testing.T) { in.useMapped(t, dir) })
}

func (in *installation) useMapped(t *testing.T, dir string) {
	mapped := in.idMapped(t, dir)
	const script = `cd "$1"; echo text > file; mkdir folder; ln -s file link; mkfifo pipe; ln file folder/hard; echo more >> file; mv folder moved; chmod 640 file`
	mustRun(t, as(firstID, "sh", "-euc", script, "sh", mapped))
	owners := func(dir string, want uint32) {
		t.Helper()
		for _, name := range []string{"file", "moved", "link", "pipe", "moved/hard"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil || st.Uid != want || st.Gid != want {
				t.Errorf("%s/%s belongs to %d:%d (%v), want %d", dir, name, st.Uid, st.Gid, err, want)
			}
		}
	}
	owners(dir, 0)
	owners(mapped, firstID)
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != "text\nmore\n" {
		t.Errorf("the file holds %q, %v", got, err)
	}

	// Permissions are judged by who one is in the namespace.
	reading := func() (string, error) {
		out, err := as(firstID+7, "cat", filepath.Join(mapped, "file")).CombinedOutput()
		return string(out), err
	}
	if out, err := reading(); err == nil {
		t.Errorf("another user of the namespace reads a file of mode 640: %s", out)
	}
	if err := os.Chown(filepath.Join(mapped, "file"), firstID+7, firstID+7); err != nil {
		t.Error(err)
	}
	if out, err := reading(); err != nil || out != "text\nmore\n" {
		t.Errorf("its owner reads %q, %v", out, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "file"), &st); err != nil || st.Uid != 7 {
		t.Errorf("owner %d, %v, want 7", st.Uid, err)
	}
	if err := os.WriteFile(filepath.Join(mapped, "nobody's"), nil, 0o600); !errors.Is(err, syscall.EOVERFLOW) {
		t.Errorf("somebody who is not in the namespace makes a file: %v, want EOVERFLOW", err)
	}

	// The next worker has agreed on the same with the kernel.
	for _, pid := range in.workers() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	mustRun(t, as(firstID, "sh", "-euc", `echo again > "$1/moved/again"`, "sh", mapped))
	if err := unix.Stat(filepath.Join(dir, "moved", "again"), &st); err != nil || st.Uid != 0 {
		t.Errorf("after the worker's death: owner %d, %v, want 0", st.Uid, err)
	}
}
