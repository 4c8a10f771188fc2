package csisanity

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// TestUnstageAfterDeath: keeper and mounter die at once, with what was acknowledged and
// not flushed, and the volume is unstaged, since its pod goes to another node. What was
// written is in the cluster when the unstaging returns.
func TestUnstageAfterDeath(t *testing.T) {
	in := startState(t)
	v, node := in.create(t, volumeName(t)), in.nodeService(t)
	staging := filepath.Join(in.work, v.name+"-staging")
	_, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: v.Bucket, StagingTargetPath: staging, VolumeCapability: capabilityOf(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
	})
	if err != nil {
		t.Fatal(err)
	}
	before := in.mustStatus(t)
	pids := append([]int{before.component(t, "keeper").PID}, children(before.component(t, "mounter").PID)...)
	f, err := os.Create(filepath.Join(staging, "file"))
	if err == nil {
		_, err = f.WriteString("acknowledged")
	}
	if err != nil {
		t.Fatal(err)
	}
	// The keeper and the worker, at once; the worker's parent lives, or the worker would
	// see it die, and commit what it has.
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err == nil {
		t.Error("a file of a mount that has died was closed")
	}
	eventually(t, 60*time.Second, func() error {
		_, err := node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging})
		return err
	})
	if err := v.holds(t.Context(), "file", "acknowledged"); err != nil {
		t.Errorf("after the unstaging: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(in.dir, "mounter", "volumes")); err != nil || len(entries) > 0 {
		t.Errorf("the node keeps %v, %v", entries, err)
	}
	if err := os.Remove(staging); err != nil { // rmdir: the kubelet's part
		t.Error(err)
	}
}
