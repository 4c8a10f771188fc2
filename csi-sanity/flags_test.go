package csisanity

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// TestMountFlags: a StorageClass's mountOptions and fsType. What has no meaning is
// refused by every call, and no value of it is in a log; what has one holds in the
// kernel.
func TestMountFlags(t *testing.T) {
	in := shared(t)
	v, controller, node := in.create(t, volumeName(t)), in.controllerService(t), in.nodeService(t)
	with := func(fs string, flags ...string) *csi.VolumeCapability {
		c := capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
		c.GetMount().FsType, c.GetMount().MountFlags = fs, flags
		return c
	}
	staging := filepath.Join(in.work, v.name+"-staging")
	at := func(name string) string { return filepath.Join(in.work, v.name+"-"+name) }
	stage := func(c *csi.VolumeCapability) error {
		_, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging, VolumeCapability: c})
		return err
	}
	publish := func(name string, c *csi.VolumeCapability) error {
		_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging, TargetPath: at(name), VolumeCapability: c})
		return err
	}
	const secret = "hunter2-of-mount-flags"
	for _, x := range []struct {
		c     *csi.VolumeCapability
		words []string
	}{
		{with("ext4"), []string{"fs_type", "ext4", "holdfast"}},
		{with("", "discard"), []string{"mount flag", "discard", "noexec"}},
		{with("", "password="+secret), []string{"mount flag", "password=…", "noexec"}},
		{with("", "ro", "rw"), []string{"ro and rw"}},
	} {
		_, err := controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: v.name + "-refused", VolumeCapabilities: []*csi.VolumeCapability{x.c}, Secrets: map[string]string{"key": secret}})
		refused(t, "create", err, codes.InvalidArgument, x.words...)
		refused(t, "stage", stage(x.c), codes.InvalidArgument, x.words...)
		refused(t, "publish", publish("refused", x.c), codes.InvalidArgument, x.words...)
	}
	for _, path := range []string{staging, at("refused")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "grep", "-rl", secret, filepath.Join(in.dir, "logs")).CombinedOutput(); err == nil || len(out) > 0 {
		t.Errorf("a flag's value is in the logs: %s%v", out, err)
	}

	plain, inert, reader := with("holdfast", "rw", "nosuid", "nodev", "noatime"), with("", "noexec"), with("", "ro", "noexec")
	if err := stage(plain); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, name := range []string{"plain", "inert", "reader"} {
			if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: at(name)}); err != nil {
				t.Error(err)
			}
		}
		if _, err := node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: staging}); err != nil {
			t.Error(err)
		}
		if err := os.Remove(staging); err != nil { // rmdir: the kubelet's part
			t.Error(err)
		}
	}()
	for name, c := range map[string]*csi.VolumeCapability{"plain": plain, "inert": inert, "reader": reader} {
		for range 2 {
			if err := publish(name, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	refused(t, "the same place with other flags", publish("plain", inert), codes.AlreadyExists, "noexec")
	if err := os.WriteFile(filepath.Join(at("plain"), "program"), []byte("#!/bin/sh\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		flags int64
		exit  error
	}{
		"plain":  {0, nil},
		"inert":  {unix.ST_NOEXEC, syscall.EACCES},
		"reader": {unix.ST_NOEXEC | unix.ST_RDONLY, syscall.EACCES},
	} {
		var fs unix.Statfs_t
		if err := unix.Statfs(at(name), &fs); err != nil {
			t.Fatal(err)
		}
		if got := fs.Flags & (unix.ST_NOEXEC | unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV); got != want.flags|unix.ST_NOSUID|unix.ST_NODEV {
			t.Errorf("%s: flags %#x", name, got)
		}
		err := exec.CommandContext(t.Context(), filepath.Join(at(name), "program")).Run()
		if ended, ok := errors.AsType[*exec.ExitError](err); want.exit == nil && (!ok || ended.ExitCode() != 7) || want.exit != nil && !errors.Is(err, want.exit) {
			t.Errorf("%s: a program there: %v", name, err)
		}
		err = os.WriteFile(filepath.Join(at(name), "written"), []byte("x"), 0o600)
		if readOnly := want.flags&unix.ST_RDONLY != 0; readOnly != errors.Is(err, syscall.EROFS) || !readOnly && err != nil {
			t.Errorf("%s: a write: %v", name, err)
		}
	}
}
