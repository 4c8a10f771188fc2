package csisanity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/container-storage-interface/spec/lib/go/csi"
)

// garden is where a user's files are planted, in the way of all that is cleaned up.
type garden struct {
	in *installation
	// user is a folder of the user's, which links and bind mounts lead to.
	user string
	// has is what is planted elsewhere, by path.
	has map[string]string
}

func newGarden(t *testing.T, in *installation) *garden {
	t.Helper()
	g := &garden{in: in, user: filepath.Join(filepath.Dir(in.dir), "user"), has: map[string]string{}}
	// Some have the names of our own files.
	for _, name := range []string{"file", "deep/file", "journal", "room", "stage-7-8", "leftovers/file", "holdfast.blocks", "holdfast.index", "admin.json"} {
		path := filepath.Join(g.user, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		g.plant(t, path)
	}
	return g
}

// plant puts a user's file somewhere.
func (g *garden) plant(t *testing.T, path string) {
	t.Helper()
	g.has[path] = "a user's: " + path
	if err := os.WriteFile(path, []byte(g.has[path]), 0o666); err != nil {
		t.Fatal(err)
	}
}

// below plants a file in a folder that is a mount point, below what is mounted there.
func (g *garden) below(t *testing.T, point, name string) {
	t.Helper()
	view := filepath.Join(filepath.Dir(g.in.dir), "view")
	if err := os.MkdirAll(view, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "--bind", filepath.Dir(point), view)
	path := filepath.Join(point, name)
	g.has[path] = "a user's: " + path
	err := os.WriteFile(filepath.Join(view, filepath.Base(point), name), []byte(g.has[path]), 0o666)
	command(t, "umount", view)
	if err != nil {
		t.Fatal(err)
	}
}

// whole wants that not one file is gone or changed. Those below a mount are not looked
// at while it is there.
func (g *garden) whole(t *testing.T, when string) {
	t.Helper()
	mounts, err := mountsBelow(filepath.Dir(g.in.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(g.has)) {
		if slices.ContainsFunc(mounts, func(m string) bool { return strings.HasPrefix(path, m+"/") }) {
			continue
		}
		if err := sameContent(path, g.has[path]); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	found := 0
	if err := filepath.WalkDir(g.user, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			found++
		}
		return err
	}); err != nil || found != 9 {
		t.Errorf("%s: the user's folder has %d files, %v", when, found, err)
	}
}

// misled runs holdfast in a mount namespace of its own, where the table of mounts says
// something else, and all else in /proc is gone.
func (in *installation) misled(t *testing.T, table string, args ...string) error {
	t.Helper()
	proc := t.TempDir()
	for _, self := range []string{"self", "thread-self"} {
		if err := os.Mkdir(filepath.Join(proc, self), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, self, "mountinfo"), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	script := `mount --bind "$0" /proc && exec "$@"`
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", script, proc, filepath.Join(bin, "holdfast")}, args...)...)
	cmd.Env = append(os.Environ(), "HOLDFAST_STATE="+in.dir)
	cmd.WaitDelay = time.Second
	_, err := finish(cmd)
	return err
}

// TestCleanUpCannotHurt plants a user's files in the way of every clean-up, has it
// fail, be killed and be repeated, and wants that not one file is gone: on the real
// kernel, keeper, mounter and cluster.
func TestCleanUpCannotHurt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("planting files below mounts needs root")
	}
	in := startState(t)
	g := newGarden(t, in)
	// Buckets with names like those of volumes.
	admin := in.adminKeys(t, in.mustStatus(t)).client()
	name := volumeName(t)
	for _, bucket := range []string{name + "-1", name + "2"} {
		if _, err := admin.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("theirs"), Body: strings.NewReader("theirs")}); err != nil {
			t.Fatal(err)
		}
	}
	v := in.create(t, name)
	theirs := func(when string) {
		t.Helper()
		for _, bucket := range []string{name + "-1", name + "2"} {
			if _, err := admin.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(bucket), Key: aws.String("theirs")}); err != nil {
				t.Errorf("%s: bucket %s: %v", when, bucket, err)
			}
		}
	}

	made, own := filepath.Join(in.work, "made"), filepath.Join(in.work, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func() {
		t.Helper()
		in.must(t, "volume", "mount", name, made)
		in.must(t, "volume", "mount", name, own)
	}
	mount()
	staging := filepath.Join(in.dir, "staging", v.Bucket)
	for _, point := range []string{made, own, staging} {
		g.below(t, point, "hidden")
	}
	folders, err := filepath.Glob(filepath.Join(in.dir, "mounter", "volumes", "*"))
	if err != nil || len(folders) != 1 {
		t.Fatalf("the volume's folder on the node: %q, %v", folders, err)
	}
	for _, n := range []string{"notes", "stage-mine", "journal.mine"} {
		g.plant(t, filepath.Join(folders[0], n))
	}
	if err := os.Symlink(filepath.Join(g.user, "file"), filepath.Join(folders[0], "stage-1-2")); err != nil {
		t.Fatal(err)
	}
	// A link in the place of a volume's folder on the node: the mount is refused.
	linked := in.create(t, name+"-linked")
	link := filepath.Join(filepath.Dir(folders[0]), linked.Bucket)
	if err := os.Symlink(g.user, link); err != nil {
		t.Fatal(err)
	}
	in.fails(t, []string{"volume", "mount", linked.name, filepath.Join(in.work, "linked")}, "is a link")
	g.whole(t, "a link in the place of a folder")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	in.must(t, "volume", "mount", linked.name, filepath.Join(in.work, "linked"))
	in.must(t, "volume", "unmount", filepath.Join(in.work, "linked"))
	in.must(t, "volume", "delete", linked.name, "--yes")

	object := filepath.Join(made, "object")
	busy := writeSynced(t, object, "in the volume")

	// Nothing goes while it is in use.
	for range 2 {
		for _, args := range [][]string{{"down", "--delete-data", "--yes"}, {"volume", "unmount", made}, {"volume", "delete", name, "--yes"}} {
			if _, err := in.run(t.Context(), args...); err == nil {
				t.Errorf("holdfast %s, while a file is open", strings.Join(args, " "))
			}
		}
	}
	if err := sameContent(object, "in the volume"); err != nil {
		t.Error(err)
	}
	g.whole(t, "busy")
	_ = busy.Close()

	// Unmounted, the folders have content.
	for _, at := range []string{made, own} {
		in.must(t, "volume", "unmount", at)
	}
	if mounts, err := mountsBelow(in.work); err != nil || len(mounts) > 0 {
		t.Errorf("still mounted: %v, %v", mounts, err)
	}
	g.whole(t, "unmounted")
	for _, at := range []string{made, own} { // what is there would be hidden
		if _, err := in.run(t.Context(), "volume", "mount", name, at); err == nil {
			t.Errorf("mounted over the user's files in %s", at)
		}
	}
	g.whole(t, "not mounted")

	// All that the kubelet can name, before, while and after the keeper is dead.
	node := in.csi(t).node
	for _, dir := range []string{"foreign", "foreign/deep"} {
		if err := os.Mkdir(filepath.Join(in.work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		g.plant(t, filepath.Join(in.work, dir, "data"))
	}
	if err := os.Symlink(g.user, filepath.Join(in.work, "link")); err != nil {
		t.Fatal(err)
	}
	g.plant(t, filepath.Join(in.work, "plain"))
	kubelet := func(when string) {
		t.Helper()
		for _, at := range []string{"made", "own", "foreign", "foreign/deep", "link", "link/deep", "link/file", "plain", "foreign/data", "missing"} {
			path := filepath.Join(in.work, at)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, unpublish := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: path})
			_, unstage := node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: path})
			cancel()
			if at == "foreign" && unpublish == nil {
				t.Errorf("%s: unpublished %s, which has a user's files: %v", when, path, unstage)
			}
		}
		g.whole(t, when)
	}
	kubelet("as the kubelet")
	old := in.mustStatus(t).component(t, "keeper").PID
	kill(t, old)
	kubelet("without a keeper")
	eventually(t, time.Minute, func() error {
		if c := in.mustStatus(t).component(t, "keeper"); !c.Ready || c.PID == old {
			return errors.New("the keeper has not come back")
		}
		return nil
	})
	kubelet("with a new keeper")

	// Everything dies with a volume mounted; the user takes the dead mount away and
	// puts files where it was. What comes next restores mounts.
	target := filepath.Join(in.work, "target")
	in.must(t, "volume", "mount", name, target)
	in.killAll()
	eventually(t, 20*time.Second, in.noProcess)
	detachAll(in.work)
	g.plant(t, filepath.Join(target, "planted"))
	detachAll(in.dir)
	g.plant(t, filepath.Join(staging, "planted"))
	chunks := filepath.Join(in.dir, "mounter", "cache")
	g.plant(t, filepath.Join(chunks, "notes"))
	index := filepath.Join(chunks, "holdfast.index")
	if err := errors.Join(os.Remove(index), os.Symlink(filepath.Join(g.user, "holdfast.index"), index)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.run(t.Context(), "up", "--port-base", fmt.Sprint(in.base)); err != nil {
		t.Logf("up over the user's files: %v", err)
	}
	g.whole(t, "after everything died")
	in.must(t, "volume", "unmount", target)
	g.whole(t, "and was unmounted")
	theirs("before the deletion")
	in.must(t, "volume", "delete", name, "--yes")
	g.whole(t, "the volume is deleted")
	theirs("after the deletion")

	g.deleteData(t)
}

// deleteData takes the state away, with bind mounts and links in it that lead to the
// user's files.
func (g *garden) deleteData(t *testing.T) {
	t.Helper()
	in := g.in
	g.plant(t, filepath.Join(in.dir, "mine.txt"))
	for _, dir := range []string{"cluster", "staging", "mounter/volumes", "mounts", "logs", "run"} {
		if err := os.Symlink(g.user, filepath.Join(in.dir, dir, "link")); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(in.dir, "mounter", "volumes", "gone", "leftovers")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kept, "20260101T000000-1"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.fails(t, []string{"down", "--delete-data"}, "could not be committed", "files: 1", "--yes")
	bind := filepath.Join(in.dir, "mounter", "volumes", "bound")
	if err := os.Mkdir(bind, 0o755); err != nil {
		t.Fatal(err)
	}
	command(t, "mount", "--bind", g.user, bind)
	// What was planted in the state itself goes with it: that is what is asked for.
	stays := maps.Clone(g.has)
	maps.DeleteFunc(stays, func(path, _ string) bool {
		return strings.HasPrefix(path, in.dir+"/") && filepath.Dir(path) != in.dir
	})
	in.fails(t, []string{"down", "--delete-data", "--yes"}, "still mounted", bind)
	g.whole(t, "with a bind mount in the state")
	for _, dir := range []string{"cluster", "mounter/volumes/link", "config.json"} {
		if _, err := os.Lstat(filepath.Join(in.dir, dir)); err != nil {
			t.Errorf("a part of the state is gone: %v", err)
		}
	}
	if err := in.misled(t, "no table of mounts\n", "down", "--delete-data", "--yes"); err == nil || strings.Contains(err.Error(), "still mounted") {
		t.Errorf("the table of mounts cannot be read: %v", err)
	}
	g.whole(t, "the table of mounts cannot be read")
	// One that lies: the kernel itself keeps the walk out of the mount.
	if err := in.misled(t, "", "down", "--delete-data", "--yes"); err == nil || !strings.Contains(err.Error(), "cross-device") {
		t.Errorf("the table of mounts is empty: %v", err)
	}
	g.has = stays
	g.whole(t, "the table of mounts is empty")
	command(t, "umount", bind)

	for i := range 20 { // killed on the way
		cmd := in.command(t.Context(), "down", "--delete-data", "--yes")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(i)*3*time.Millisecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait() // killed, or done
		timer.Stop()
		g.whole(t, "killed on the way")
	}
	in.must(t, "down", "--delete-data", "--yes")
	g.whole(t, "at the end")
	left, err := os.ReadDir(in.dir)
	if err != nil || len(left) != 1 || left[0].Name() != "mine.txt" {
		t.Errorf("left of the state: %v, %v", left, err)
	}
}
