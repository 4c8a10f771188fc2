package csisanity

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// owned wants a file of that group and mode.
func owned(t *testing.T, path string, gid uint32, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if got := info.Sys().(*syscall.Stat_t).Gid; got != gid || info.Mode()&(os.ModePerm|os.ModeSetgid) != mode {
		t.Errorf("%s is of group %d with mode %v, want %d and %v", path, got, info.Mode(), gid, mode)
	}
}

// A pod's fsGroup, which the kubelet hands over: the group has the root and what was
// made over S3, and what its members make in there is the group's.
func TestMountGroup(t *testing.T) {
	const group = 4321
	if os.Getuid() != 0 {
		t.Skip("acting as another user needs root")
	}
	in := shared(t)
	v, node := in.create(t, volumeName(t)), in.nodeService(t)
	v.put(t, "dir/object", "from S3")
	vc := func(group string) *csi.VolumeCapability {
		c := capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
		c.GetMount().VolumeMountGroup = group
		return c
	}
	staging, pod := filepath.Join(in.work, v.name+"-staging"), filepath.Join(in.work, v.name+"-pod")
	stage := func(group string) error {
		_, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging, VolumeCapability: vc(group)})
		return err
	}
	publish := func(group, at string) error {
		_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging, TargetPath: at, VolumeCapability: vc(group)})
		return err
	}
	refused(t, "a group by name", stage("staff"), codes.InvalidArgument, "volume_mount_group", "staff")
	if err := stage(fmt.Sprint(group)); err != nil {
		t.Fatal(err)
	}
	if err := publish(fmt.Sprint(group), pod); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: pod}); err != nil {
			t.Error(err)
		}
		if _, err := node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging}); err != nil {
			t.Error(err)
		}
		if err := os.Remove(staging); err != nil { // rmdir: the kubelet's part
			t.Error(err)
		}
	}()
	refused(t, "another group", publish("1", pod+"-other"), codes.FailedPrecondition, fmt.Sprint(group))

	owned(t, pod, group, os.ModeSetgid|0o777)
	owned(t, filepath.Join(pod, "dir"), group, os.ModeSetgid|0o775)
	owned(t, filepath.Join(pod, "dir/object"), group, 0o664)
	member := exec.CommandContext(t.Context(), "setpriv", "--reuid=5000", "--regid=5000", fmt.Sprintf("--groups=%d", group), "sh", "-c",
		`umask 002 && cd "$0" && echo more >>dir/object && echo new >dir/file && mkdir folder && echo new >folder/file`, pod)
	if out, err := member.CombinedOutput(); err != nil {
		t.Fatalf("a member of the group: %v: %s", err, out)
	}
	owned(t, filepath.Join(pod, "dir/object"), group, 0o664)
	owned(t, filepath.Join(pod, "dir/file"), group, 0o664)
	owned(t, filepath.Join(pod, "folder"), group, os.ModeSetgid|0o775)
	owned(t, filepath.Join(pod, "folder/file"), group, 0o664)
	if err := v.holds(t.Context(), "dir/object", "from S3more\n"); err != nil {
		t.Error(err)
	}
	stranger := exec.CommandContext(t.Context(), "setpriv", "--reuid=5001", "--regid=5001", "--clear-groups", "sh", "-c", `echo more >>"$0"/dir/object`, pod)
	if out, err := stranger.CombinedOutput(); err == nil {
		t.Errorf("somebody else wrote to the group's object: %s", out)
	}

	// The next pod has another group, and finds what the first has made as its own.
	const next = 5432
	if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: pod}); err != nil {
		t.Fatal(err)
	}
	if err := publish(fmt.Sprint(next), pod); err != nil {
		t.Fatal(err)
	}
	owned(t, pod, next, os.ModeSetgid|0o777)
	owned(t, filepath.Join(pod, "folder"), next, os.ModeSetgid|0o775)
	owned(t, filepath.Join(pod, "folder/file"), next, 0o664)
	member = exec.CommandContext(t.Context(), "setpriv", "--reuid=5002", "--regid=5002", fmt.Sprintf("--groups=%d", next), "sh", "-c",
		`umask 002 && cd "$0" && echo more >>folder/file && echo new >folder/next`, pod)
	if out, err := member.CombinedOutput(); err != nil {
		t.Fatalf("a member of the next group: %v: %s", err, out)
	}
	owned(t, filepath.Join(pod, "folder/next"), next, 0o664)
}
