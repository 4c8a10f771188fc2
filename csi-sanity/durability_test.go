package csisanity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// object returns what S3 has of a key.
func (v *volume) object(t *testing.T, key string) ([]byte, error) {
	t.Helper()
	out, err := v.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String(key)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Body.Close() }()
	return io.ReadAll(out.Body)
}

// inS3 says whether S3 has the content.
func (v *volume) inS3(t *testing.T, want map[string][]byte) error {
	t.Helper()
	for name, content := range want {
		got, err := v.object(t, name)
		if err != nil || !bytes.Equal(got, content) {
			return fmt.Errorf("%s: S3 has %d bytes, not the %d that were written, %w", name, len(got), len(content), err)
		}
	}
	return nil
}

// In a volume with durability=node fsync returns when the node's disk has the data.
// Keeper and mounter are killed at once before the cluster has any of it. When the
// volume is mounted again it is there, and holdfast volume sync brings it to S3; and so
// does unmounting what was only written and closed.
func TestDurabilityOfTheNode(t *testing.T) {
	in := startState(t)
	in.fails(t, []string{"volume", "create", "many", "--size", "1Gi", "--access", "shared", "--param", "durability=node"}, "durability", "SINGLE_NODE_WRITER")
	in.fails(t, []string{"volume", "create", "many", "--size", "1Gi", "--access", "single", "--param", "durability=disk"}, "durability", "disk", "cluster or node")
	v := in.create(t, volumeName(t), "--access", "single", "--param", "durability=node", "--param", "commitDelay=5m")
	dir := v.mount(t)
	rng := newLoad(t, v, dir).random(0)
	want, fresh := map[string][]byte{}, map[string][]byte{}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close() // it fails, as it should
		}
	}()
	for i, size := range []int{1, 5_000, 70_000, 300_000, 3 << 20} {
		name, content := fmt.Sprintf("f%d", i), noise(rng, size)
		flags := os.O_CREATE | os.O_RDWR
		if i == 1 {
			flags |= syscall.O_DSYNC // as if each write were followed by fdatasync
		}
		f, err := os.OpenFile(filepath.Join(dir, name), flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = f.Write(content); err == nil && i != 1 {
			err = f.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			files = append(files, f)
		} else if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		want[name] = content
		if got, err := v.object(t, name); err != nil || len(got) > 0 {
			t.Errorf("%s: S3 has %d bytes before the delay is over, %v", name, len(got), err)
		}
	}
	before := in.mustStatus(t)
	workers := children(before.component(t, "mounter").PID)
	for _, pid := range append([]int{before.component(t, "keeper").PID, before.component(t, "mounter").PID}, workers...) {
		kill(t, pid)
	}
	eventually(t, 60*time.Second, func() error {
		for _, c := range in.mustStatus(t).Processes {
			if !c.Ready {
				return fmt.Errorf("not ready: %+v", c)
			}
		}
		return nil
	})
	for name, content := range want {
		eventually(t, 60*time.Second, func() error { return holds(filepath.Join(dir, name), content) })
	}
	in.must(t, "volume", "sync", v.name)
	if err := v.inS3(t, want); err != nil {
		t.Error(err)
	}
	for i, size := range []int{10, 400_000} {
		name, content := fmt.Sprintf("closed%d", i), noise(rng, size)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		fresh[name] = content
	}
	in.must(t, "volume", "sync", filepath.Join(dir, "closed0"))
	if err := v.inS3(t, fresh); err != nil {
		t.Errorf("after sync of a path: %v", err)
	}
	fresh["closed0"], fresh["closed2"] = noise(rng, 20), noise(rng, 100_000)
	for _, name := range []string{"closed0", "closed2"} {
		if err := os.WriteFile(filepath.Join(dir, name), fresh[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.inS3(t, fresh); err == nil {
		t.Error("S3 has what was closed a moment ago, before anybody waited for it")
	}
	for _, f := range files {
		_ = f.Close()
	}
	in.must(t, "volume", "unmount", dir)
	if err := v.inS3(t, fresh); err != nil {
		t.Errorf("unmounted: %v", err)
	}
	in.fails(t, []string{"volume", "sync", v.name}, "not mounted")
	in.fails(t, []string{"volume", "sync", in.work + "/"}, "no volume of Holdfast")
	in.fails(t, []string{"volume", "sync", filepath.Join(in.work, "none")}, "none")
}

// The cluster follows within the delay without anybody asking, and while it is away
// for less than that, nobody waits for it.
func TestClusterFollowsTheNode(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t), "--access", "single", "--param", "durability=node", "--param", "commitDelay=30s")
	dir := v.mount(t)
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	filer := in.mustStatus(t).component(t, "filer").PID
	if err := syscall.Kill(filer, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			if err := syscall.Kill(filer, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
	}
	defer resume()
	done := make(chan error, 1)
	begun := time.Now()
	go func() {
		_, err := f.WriteAt([]byte("again"), 5)
		done <- errors.Join(err, f.Sync())
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
		t.Logf("write and fsync with a filer that stands still took %v", time.Since(begun))
	case <-time.After(8 * time.Second):
		t.Error("fsync waits for a filer that stands still")
	}
	resume()
	eventually(t, 40*time.Second, func() error { return v.inS3(t, map[string][]byte{"f": []byte("firstagain")}) })
}
