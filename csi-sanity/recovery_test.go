package csisanity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// kill ends one process.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("no process to kill: %d", pid)
	}
	err := syscall.Kill(pid, syscall.SIGKILL)
	if errors.Is(err, syscall.EPERM) {
		err = asRoot("kill", "-9", fmt.Sprint(pid)).Run()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sameContent compares a file of the mount.
func sameContent(path, want string) error {
	b, err := os.ReadFile(path)
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s holds %d bytes %.20q, want %d bytes %.20q", path, len(b), b, len(want), want)
	}
	return err
}

// writeSynced writes a file and flushes it while it stays open.
func writeSynced(t *testing.T, path, content string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // or a test that fails leaves its mount busy
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f
}

// A power cut: everything is killed at once. The next up finds every volume, every
// mount, and all that was closed or flushed.
func TestKillEverything(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	for i := range 20 {
		if err := os.WriteFile(fmt.Sprintf("%s/closed-%d", dir, i), fmt.Appendf(nil, "closed %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open := writeSynced(t, filepath.Join(dir, "flushed"), "flushed and still open")
	v.put(t, "over-s3", "over S3")

	in.killAll()
	_ = open.Close() // it fails, as it should
	eventually(t, 20*time.Second, in.noProcess)

	in.up(t)
	for i := range 20 {
		if err := sameContent(fmt.Sprintf("%s/closed-%d", dir, i), fmt.Sprintf("closed %d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := sameContent(filepath.Join(dir, "flushed"), "flushed and still open"); err != nil {
		t.Error(err)
	}
	if err := sameContent(filepath.Join(dir, "over-s3"), "over S3"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "after"), []byte("after"), 0o600); err != nil {
		t.Error(err)
	}

	in.must(t, "down")
	if err := in.nothingLeft(); err != nil {
		t.Error(err)
	}
	in.must(t, "down") // and again: nothing runs, which is fine

	in.up(t)
	if err := sameContent(filepath.Join(dir, "after"), "after"); err != nil {
		t.Errorf("after a down and an up: %v", err)
	}
}

// Without the node service the mounts live on, and its successor knows them.
func TestKillNode(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	f := writeSynced(t, filepath.Join(dir, "file"), "before")
	defer func() { _ = f.Close() }()
	old := in.mustStatus(t).component(t, "node")

	kill(t, old.PID)
	if _, err := f.WriteString(" and after"); err != nil {
		t.Errorf("write while the node service is dead: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	eventually(t, 20*time.Second, func() error {
		now := in.mustStatus(t).component(t, "node")
		if now.PID == old.PID || !now.Ready {
			return fmt.Errorf("no new node service: %+v", now)
		}
		return nil
	})
	if err := sameContent(filepath.Join(dir, "file"), "before and after"); err != nil {
		t.Error(err)
	}
	in.must(t, "volume", "describe", v.name) // which measures the mount
	_ = f.Close()
	in.must(t, "volume", "unmount", dir)
	if mounts, err := mountsBelow(in.work); err != nil || len(mounts) > 0 {
		t.Errorf("the new node service did not unmount: %v %v", mounts, err)
	}
}

// Without the supervisor the cluster goes, the keeper and the mounter stay. The
// next up takes them over, and an application goes on with what it had open.
func TestKillSupervisor(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	f := writeSynced(t, filepath.Join(dir, "file"), "before")
	defer func() { _ = f.Close() }()
	before := in.mustStatus(t)

	kill(t, before.Supervisor.PID)
	eventually(t, 20*time.Second, func() error { return portsFree(t.Context(), in.base) })
	in.fails(t, []string{"volume", "create", "nobody-there", "--size", "1Gi"}, "holdfast up")
	in.fails(t, []string{"status"}, "holdfast up")

	in.up(t)
	after := in.mustStatus(t)
	for _, name := range []string{"keeper", "mounter"} {
		if was, is := before.component(t, name), after.component(t, name); was.process != is.process {
			t.Errorf("%s was %+v and is %+v: it should have lived on", name, was, is)
		}
	}
	if _, err := f.WriteString(" and after"); err != nil {
		t.Errorf("write to a file that was open all the time: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("flush a file that was open all the time: %v", err)
	}
	if err := sameContent(filepath.Join(dir, "file"), "before and after"); err != nil {
		t.Error(err)
	}

	// And once more, with a down in place of the up: it ends what is left.
	kill(t, after.Supervisor.PID)
	_ = f.Close()
	eventually(t, 20*time.Second, func() error { return portsFree(t.Context(), in.base) })
	in.must(t, "down")
	if err := in.nothingLeft(); err != nil {
		t.Error(err)
	}
}
