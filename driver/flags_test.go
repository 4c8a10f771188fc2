package driver

import (
	"context"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// mountCapWith is mountCap with what a StorageClass adds.
func mountCapWith(m mode, fs string, flags ...string) *csi.VolumeCapability {
	c := mountCap(m)
	c.GetMount().FsType, c.GetMount().MountFlags = fs, flags
	return c
}

// TestMountFlags: what has no meaning is refused by every call that takes it, before
// anything is made, and a flag's value is not told; what has one holds where a pod has
// the volume.
func TestMountFlags(t *testing.T) {
	b := newBench(t)
	b.create(t)
	stage := func(c *csi.VolumeCapability) error {
		_, err := b.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging"), VolumeCapability: c})
		return err
	}
	publish := func(at string, c *csi.VolumeCapability) error {
		_, err := b.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging"), TargetPath: b.path(at), VolumeCapability: c})
		return err
	}
	for what, c := range map[string]*csi.VolumeCapability{
		"fs_type":         mountCapWith(everyone, "ext4"),
		"unknown":         mountCapWith(everyone, "", "ro", "discard"),
		"with a value":    mountCapWith(everyone, "", "password=hunter2"),
		"joined":          mountCapWith(everyone, "", "ro,uid=hunter2"),
		"empty":           mountCapWith(everyone, "", ""),
		"contradicting":   mountCapWith(everyone, "", "ro", "rw"),
		"upper case":      mountCapWith(everyone, "", "RO"),
		"fs_type's value": mountCapWith(everyone, "holdfast,suid"),
	} {
		_, created := b.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: "other", VolumeCapabilities: []*csi.VolumeCapability{c}})
		for call, err := range map[string]error{"create": created, "stage": stage(c), "publish": publish("pod", c)} {
			wantKind(t, what+", "+call, err, storage.Invalid)
			if err != nil && (strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "fs_type") && !strings.Contains(err.Error(), "mount flag")) {
				t.Errorf("%s, %s: %v", what, call, err)
			}
		}
		told, err := b.controller.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "photos", VolumeCapabilities: []*csi.VolumeCapability{c}})
		if err != nil || told.GetConfirmed() != nil || told.GetMessage() == "" {
			t.Errorf("%s: validated: %v, %v", what, told, err)
		}
	}
	if _, err := b.store.GetRecord(t.Context(), "other"); !storage.Is(err, storage.NotFound) {
		t.Errorf("a refused volume was made: %v", err)
	}
	if len(b.mounter.mu.at) > 0 {
		t.Errorf("mounted: %v", b.mounter.mu.at)
	}
	plain := mountCapWith(everyone, "holdfast", "nosuid", "nodev", "noatime", "nodiratime", "relatime", "rw")
	inert, reader := mountCapWith(everyone, "", "noexec,nosuid"), mountCapWith(everyone, "", "ro")
	must(t, stage(plain))
	for at, c := range map[string]*csi.VolumeCapability{"plain": plain, "inert": inert, "reader": reader} {
		for range 2 {
			must(t, publish(at, c))
		}
	}
	for at, want := range map[string]BindOptions{"staging": {}, "plain": {}, "inert": {NoExec: true}, "reader": {ReadOnly: true}} {
		if _, has, _ := b.mounter.Mounted(b.path(at)); has != want {
			t.Errorf("%s: %+v, want %+v", at, has, want)
		}
	}
	wantKind(t, "other flags", publish("plain", inert), storage.Exists)
	wantKind(t, "other flags", publish("inert", plain), storage.Exists)
	wantKind(t, "other flags", publish("reader", plain), storage.Exists)
}

// oldKeeper does not know noexec.
type oldKeeper struct{ *fakeMounter }

func (k oldKeeper) Bind(ctx context.Context, id, target string, o BindOptions) error {
	return k.fakeMounter.Bind(ctx, id, target, BindOptions{ReadOnly: o.ReadOnly})
}

// TestFlagThatHasNoEffect: a volume is not published without what was asked for.
func TestFlagThatHasNoEffect(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	b.node.mounter = oldKeeper{b.mounter}
	_, err := b.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: "photos", StagingTargetPath: b.path("staging"), TargetPath: b.path("pod"), VolumeCapability: mountCapWith(everyone, "", "noexec"),
	})
	wantKind(t, "publish", err, storage.Unsupported)
	if mounted, _, _ := b.mounter.Mounted(b.path("pod")); mounted {
		t.Error("it is published all the same")
	}
	must(t, b.publish(t, "pod", everyone, false))
}
