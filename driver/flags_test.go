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
		"no context":      mountCapWith(everyone, "", "context=hunter2"),
		"two contexts":    mountCapWith(everyone, "", `context="a:b:c"`, "context=a:b:d"),
		"context, joined": mountCapWith(everyone, "", "context=a:b:c,uid=hunter2"),
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

// TestSELinuxContext: what the kubelet adds where CSIDriver has seLinuxMount holds for
// the whole mount, and a mount has one.
func TestSELinuxContext(t *testing.T) {
	const label, other = "system_u:object_r:container_file_t:s0:c144,c154", "system_u:object_r:container_file_t:s0"
	with := func(label string) *csi.VolumeCapability {
		return mountCapWith(everyone, "", "rw,noatime", `context="`+label+`"`)
	}
	b := newBench(t)
	b.create(t)
	stage := func(c *csi.VolumeCapability) error {
		_, err := b.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging"), VolumeCapability: c})
		return err
	}
	publish := func(c *csi.VolumeCapability) error {
		_, err := b.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging"), TargetPath: b.path("pod"), VolumeCapability: c})
		return err
	}
	for range 2 {
		must(t, stage(with(label)))
		must(t, publish(with(label)))
	}
	if got, _ := b.mounter.Context(b.path("staging")); got != label {
		t.Errorf("mounted with %q", got)
	}
	wantKind(t, "staged with another", stage(with(other)), storage.InUse)
	wantKind(t, "published with another", publish(with(other)), storage.InUse)
	must(t, publish(mountCapWith(everyone, "", "rw"))) // asks for none
	if mounted, _, _ := b.mounter.Mounted(b.path("staging")); !mounted {
		t.Error("a refusal has taken the mount away")
	}
}

// oldestKeeper does not know contexts.
type oldestKeeper struct{ *fakeMounter }

func (k oldestKeeper) Mount(ctx context.Context, id, target string, o MountOptions, config []byte) error {
	return k.fakeMounter.Mount(ctx, id, target, MountOptions{ReadOnly: o.ReadOnly}, config)
}

// TestContextThatHasNoEffect: a pod would see labels that it may not touch.
func TestContextThatHasNoEffect(t *testing.T) {
	b := newBench(t)
	b.create(t)
	b.node.mounter = oldestKeeper{b.mounter}
	_, err := b.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: "photos", StagingTargetPath: b.path("staging"), VolumeCapability: mountCapWith(everyone, "", "context=a:b:c"),
	})
	wantKind(t, "stage", err, storage.InUse)
	if mounted, _, _ := b.mounter.Mounted(b.path("staging")); mounted {
		t.Error("it is mounted all the same")
	}
}

// TestContextInMountTable: as the kernel writes it.
func TestContextInMountTable(t *testing.T) {
	for options, want := range map[string]string{
		"rw,user_id=0": "", "": "", "rw,rootcontext=a:b:c,user_id=0": "",
		"rw,context=a:b:c:s0,user_id=0": "a:b:c:s0", `rw,context="a:b:c:s0:c1,c2",user_id=0`: "a:b:c:s0:c1,c2",
	} {
		if got := contextIn(options); got != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
}
