package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// bench is a store, a controller and a node without a kernel.
type bench struct {
	store      *memory.Store
	controller *Controller
	mounter    *fakeMounter
	node       *Node
	dir        string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{store: memory.New(), mounter: newFakeMounter(), dir: t.TempDir()}
	b.controller = newController(b.store)
	b.node = b.otherNode(t, "node-1", b.mounter)
	return b
}

func (b *bench) otherNode(t *testing.T, id string, m *fakeMounter) *Node {
	t.Helper()
	return b.nodeWithClock(t, id, m, nil)
}

func (b *bench) nodeWithClock(t *testing.T, id string, m *fakeMounter, now func() time.Time) *Node {
	t.Helper()
	n, err := NewNode(NodeDeps{Records: b.store, Mounter: m, Table: m, Measure: measureHere}, NodeOptions{NodeID: id, StatTimeout: 100 * time.Millisecond, Now: now})
	must(t, err)
	return n
}

func (b *bench) create(t *testing.T, modes ...mode) {
	t.Helper()
	_, err := b.controller.CreateVolume(t.Context(), ask("photos", modes...))
	must(t, err)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// stage has no time to wait for another node.
func (b *bench) stage(t *testing.T, n *Node, at string, m mode) error {
	t.Helper()
	return b.stageWithin(t, mountingTakes, n, at, m)
}

func (b *bench) stageWithin(t *testing.T, d time.Duration, n *Node, at string, m mode) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	_, err := n.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: "photos", StagingTargetPath: b.path(at), VolumeCapability: mountCap(m),
	})
	return err
}

func (b *bench) unstage(t *testing.T, at string) error {
	t.Helper()
	_, err := b.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path(at)})
	return err
}

func (b *bench) publish(t *testing.T, at string, m mode, readOnly bool) error {
	t.Helper()
	_, err := b.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: "photos", StagingTargetPath: b.path("staging"), TargetPath: b.path(at), VolumeCapability: mountCap(m), Readonly: readOnly,
	})
	return err
}

func (b *bench) unpublish(t *testing.T, at string) error {
	t.Helper()
	_, err := b.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "photos", TargetPath: b.path(at)})
	return err
}

func (b *bench) holder(t *testing.T) string {
	t.Helper()
	r, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	return strings.Join(r.Nodes(), " ")
}

// TestFigures: what was measured is told again, and what was not is missing.
func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t)
		must(t, b.stage(t, b.node, "staging", everyone))
		figures := func() Figures {
			t.Helper()
			all, err := b.node.Figures(t.Context())
			must(t, err)
			if len(all) != 1 || all[0].ID != "photos" {
				t.Fatalf("figures: %+v", all)
			}
			return all[0]
		}
		measure := func() error {
			_, err := b.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "photos", VolumePath: b.path("staging")})
			return err
		}
		if f := figures(); f.Usage != nil || !slices.Equal(f.States, []string{Healthy}) {
			t.Errorf("before it was measured: %+v", f)
		}
		must(t, measure())
		if f := figures(); f.Usage == nil || f.Usage.Total == 0 {
			t.Errorf("measured: %+v", f)
		}
		time.Sleep(toldFor + time.Second) //nolint:forbidigo // in a bubble
		if f := figures(); f.Usage != nil {
			t.Errorf("long ago: %+v", f)
		}
		must(t, measure())
		b.node.stats.measure = func(context.Context, string) (Usage, error) { return Usage{}, nil }
		if err := measure(); err == nil {
			t.Error("a size of 0 was told")
		}
		if f := figures(); f.Usage != nil {
			t.Errorf("after a failure: %+v", f)
		}
		b.mounter.health = Health{Took: 2 * slowAfter, Leftovers: 3}
		if f := figures(); !slices.Equal(f.States, []string{"Slow", "Leftovers"}) {
			t.Errorf("states: %q", f.States)
		}
		b.mounter.fail["Health"] = storage.Errorf(storage.Unavailable, "no")
		if f := figures(); f.States != nil {
			t.Errorf("states that nobody knows: %q", f.States)
		}
		b.mounter.fail["Mounts"] = storage.Errorf(storage.Unavailable, "no")
		if all, err := b.node.Figures(t.Context()); err == nil {
			t.Errorf("without the keeper: %+v", all)
		}
	})
}

// TestOneTopology: a node says that it has the driver, and no volume says where it can be
// had. Without a topology external-provisioner makes and removes CSIStorageCapacity objects
// without end, and the capability goes with it.
func TestOneTopology(t *testing.T) {
	b := newBench(t)
	info, err := b.node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if got := info.GetAccessibleTopology().GetSegments(); err != nil || len(got) != 1 || got["csi.holdfast.io/driver"] != "true" {
		t.Errorf("topology %v, %v", got, err)
	}
	req := ask("photos")
	req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{info.GetAccessibleTopology()}}
	made, err := b.controller.CreateVolume(t.Context(), req)
	if err != nil || len(made.GetVolume().GetAccessibleTopology()) > 0 {
		t.Errorf("a volume of some nodes alone: %v, %v", made, err)
	}
	plugin, err := NewIdentity(IdentityOptions{}).GetPluginCapabilities(t.Context(), nil)
	must(t, err)
	if !strings.Contains(fmt.Sprint(plugin), "VOLUME_ACCESSIBILITY_CONSTRAINTS") {
		t.Errorf("%v", plugin)
	}
}

// TestStaticAttributes: a PersistentVolume that was written by hand names another bucket
// than the volume has: that is not passed over.
func TestStaticAttributes(t *testing.T) {
	b := newBench(t)
	b.create(t)
	stage := func(id string, attributes map[string]string) error {
		_, err := b.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: b.path("staging"), VolumeCapability: mountCap(everyone), VolumeContext: attributes})
		return err
	}
	for _, attributes := range []map[string]string{{"bucketName": "videos"}, {"bucket": "videos"}, {"prefix": "a"}} {
		err := stage("photos", attributes)
		wantKind(t, fmt.Sprint(attributes), err, storage.Invalid)
		if !strings.Contains(fmt.Sprint(err), "leave it out") {
			t.Error(err)
		}
	}
	err := stage("videos", map[string]string{"bucket": "videos"})
	wantKind(t, "a volume that is gone", err, storage.NotFound)
	if !strings.Contains(fmt.Sprint(err), "volumeHandle") {
		t.Error(err)
	}
	if len(b.mounter.mu.at) > 0 {
		t.Errorf("mounted: %v", b.mounter.mu.at)
	}
	must(t, stage("photos", map[string]string{"bucket": "photos", "storage.kubernetes.io/csiProvisionerIdentity": "x", "access": "shared"}))
}

func TestLifeOfAMount(t *testing.T) {
	b := newBench(t)
	b.create(t)
	for range 2 {
		must(t, b.stage(t, b.node, "staging", everyone))
		must(t, b.publish(t, "pod", everyone, false))
	}
	must(t, b.publish(t, "second", everyone, true))
	if got := b.mounter.mu.configs; len(got) != 1 || !reflect.DeepEqual(got[0], MountConfig{Volume: "photos", Bucket: "photos", Node: "node-1"}) {
		t.Errorf("configs = %+v", got)
	}
	if b.holder(t) != "node-1" {
		t.Error("staged without a lease")
	}
	wantKind(t, "unstage while published", b.unstage(t, "staging"), storage.InUse)
	_, err := b.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	wantKind(t, "delete while staged", err, storage.InUse)

	// A node that was started again knows all that it has to know.
	b.node = b.otherNode(t, "node-1", b.mounter)
	for range 2 {
		must(t, b.unpublish(t, "pod"))
		must(t, b.unpublish(t, "second"))
		must(t, b.unstage(t, "staging"))
	}
	if _, err := os.Lstat(b.path("pod")); !os.IsNotExist(err) {
		t.Errorf("the target is still there: %v", err)
	}
	if b.holder(t) != "" {
		t.Error("unstaged, and the lease lives")
	}
	_, err = b.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	must(t, b.unpublish(t, "pod"))
	must(t, b.unstage(t, "staging"))
}

func TestStageRefuses(t *testing.T) {
	b := newBench(t)
	wantKind(t, "missing volume", b.stage(t, b.node, "staging", everyone), storage.NotFound)
	b.create(t, writer)
	must(t, os.WriteFile(b.path("file"), []byte("mine"), 0o600))
	must(t, os.Symlink(b.dir, b.path("link")))
	wantKind(t, "a file", b.stage(t, b.node, "file", writer), storage.Invalid)
	wantKind(t, "a link", b.stage(t, b.node, "link", writer), storage.Invalid)
	wantKind(t, "no parent", b.stage(t, b.node, "a/b", writer), storage.Invalid)
	wantKind(t, "below a file", b.stage(t, b.node, "file/b", writer), storage.Invalid)
	wantKind(t, "too much", b.stage(t, b.node, "staging", everyone), storage.Invalid)
	if b.holder(t) != "" {
		t.Error("a refused stage took a lease")
	}
	must(t, b.stage(t, b.node, "staging", writer))
	wantKind(t, "a second place", b.stage(t, b.node, "elsewhere", writer), storage.InUse)
	wantKind(t, "read-only now", b.stage(t, b.node, "staging", reader), storage.Exists)
	must(t, b.unstage(t, "elsewhere"))
	if b.holder(t) != "node-1" {
		t.Error("unstaging elsewhere gave the lease back")
	}
}

func TestStageOfWhatIsNotReady(t *testing.T) {
	b := newBench(t)
	b.create(t)
	for phase, want := range map[storage.Phase]storage.Kind{ //nolint:exhaustive // of what is not ready
		storage.Creating: storage.Busy, storage.Deleting: storage.InUse,
	} {
		_, err := updateRecord(t.Context(), b.store, "photos", func(r *storage.Record) error { r.Phase = phase; return nil })
		must(t, err)
		wantKind(t, string(phase), b.stage(t, b.node, "staging", everyone), want)
	}
}

func TestSingleVolumeIsOnOneNode(t *testing.T) {
	b := newBench(t)
	b.create(t, writer)
	other := b.otherNode(t, "node-2", newFakeMounter())
	must(t, b.stage(t, b.node, "staging", writer))
	err := b.stage(t, other, "staging2", writer)
	wantKind(t, "second node", err, storage.InUse)
	if err != nil && !strings.Contains(err.Error(), "node-1") {
		t.Errorf("%v does not name the holder", err)
	}
	must(t, b.unstage(t, "staging"))
	must(t, b.stage(t, other, "staging2", writer))
}

func TestSharedVolumeIsOnManyNodes(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.stage(t, b.otherNode(t, "node-2", newFakeMounter()), "staging2", everyone))
	r, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	if len(r.Leases) != 2 {
		t.Errorf("leases = %v", r.Leases)
	}
}

// TestPublishedNodes: they are those that have a lease.
func TestPublishedNodes(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.stage(t, b.otherNode(t, "node-2", newFakeMounter()), "staging2", everyone))
	nodes := func() (listed, got []string) {
		list, err := b.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		must(t, err)
		one, err := b.controller.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: "photos"})
		must(t, err)
		return list.GetEntries()[0].GetStatus().GetPublishedNodeIds(), one.GetStatus().GetPublishedNodeIds()
	}
	want := []string{"node-1", "node-2"}
	if listed, got := nodes(); !slices.Equal(listed, want) || !slices.Equal(got, want) {
		t.Errorf("published on %v and %v, want %v", listed, got, want)
	}
	must(t, b.unstage(t, "staging"))
	want = want[1:]
	if listed, got := nodes(); !slices.Equal(listed, want) || !slices.Equal(got, want) {
		t.Errorf("published on %v and %v, want %v", listed, got, want)
	}
}

func TestStageRevivesASickMount(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	b.mounter.hurt("photos")
	must(t, b.stage(t, b.node, "staging", everyone))
	if all, _ := b.mounter.Mounts(t.Context()); !all[0].Healthy {
		t.Error("still sick")
	}
}

func TestPublishRefuses(t *testing.T) {
	b := newBench(t)
	wantKind(t, "missing volume", b.publish(t, "pod", everyone, false), storage.NotFound)
	b.create(t)
	wantKind(t, "not staged", b.publish(t, "pod", everyone, false), storage.InUse)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.publish(t, "pod", everyone, false))
	wantKind(t, "read-only now", b.publish(t, "pod", everyone, true), storage.Exists)
	wantKind(t, "the staging path", b.publish(t, "staging", everyone, false), storage.Invalid)
	must(t, os.WriteFile(b.path("file"), []byte("mine"), 0o600))
	wantKind(t, "a file", b.publish(t, "file", everyone, false), storage.Invalid)
	b.mounter.mu.at[b.path("alien")] = BindOptions{}
	wantKind(t, "another's mount", b.publish(t, "alien", everyone, false), storage.Exists)
}

// TestMountGroup: a volume has one group on a node.
func TestMountGroup(t *testing.T) {
	b := newBench(t)
	b.create(t)
	of := func(group string) *csi.VolumeCapability {
		vc := mountCap(everyone)
		vc.GetMount().VolumeMountGroup = group
		return vc
	}
	stage := func(group string) error {
		_, err := b.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging"), VolumeCapability: of(group)})
		return err
	}
	publish := func(group, at string) error {
		_, err := b.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: "photos", StagingTargetPath: b.path("staging"), TargetPath: b.path(at), VolumeCapability: of(group),
		})
		return err
	}
	for _, bad := range []string{"staff", "-1", "4294967295", "1.5", " 7"} {
		wantKind(t, "stage with group "+bad, stage(bad), storage.Invalid)
	}
	if b.holder(t) != "" {
		t.Error("a refused stage took a lease")
	}
	must(t, stage("4321"))
	must(t, stage("4321"))
	must(t, stage(""))
	wantKind(t, "stage with another group", stage("1"), storage.Exists)
	must(t, publish("4321", "one"))
	must(t, publish("", "two"))
	wantKind(t, "publish with another group", publish("1", "three"), storage.InUse)
	wantKind(t, "publish with no group's number", publish("staff", "three"), storage.Invalid)
	if _, err := os.Lstat(b.path("three")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	b.mounter.hurt("photos")
	must(t, stage(""))
	if got := b.mounter.mu.configs; len(got) != 2 || !sameGroup(got[0].Group, got[1].Group) || groupName(got[1].Group) != "4321" {
		t.Errorf("configs = %+v", got)
	}

	// The next pod is of another group, and the kubelet has not unstaged between.
	unpublish := func(at string) {
		t.Helper()
		_, err := b.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "photos", TargetPath: b.path(at)})
		must(t, err)
	}
	unpublish("one")
	wantKind(t, "publish with another group beside the last pod", publish("1", "three"), storage.InUse)
	unpublish("two")
	b.mounter.fail["Mount"] = storage.Errorf(storage.Unavailable, "cut short")
	wantKind(t, "publish that is cut short", publish("1", "three"), storage.Unavailable)
	if b.holder(t) != "node-1" {
		t.Error("the lease went with it")
	}
	delete(b.mounter.fail, "Mount")
	must(t, publish("1", "three"))
	must(t, publish("1", "three"))
	if got := b.mounter.mu.configs; len(got) != 3 || groupName(got[2].Group) != "1" || !slices.Equal(got[2].Groups, []uint32{4321, 1}) {
		t.Errorf("configs = %+v", got)
	}
	unpublish("three")
	must(t, b.unstage(t, "staging"))
	wantKind(t, "publish what is not staged", publish("1", "three"), storage.InUse)
}

func TestPublishReadOnly(t *testing.T) {
	b := newBench(t)
	b.create(t, readers)
	must(t, b.stage(t, b.node, "staging", readers))
	must(t, b.publish(t, "pod", readers, false))
	// What is asked for a pod cannot widen what was staged.
	must(t, b.publish(t, "writer", everyone, false))
	for _, at := range []string{"staging", "pod", "writer"} {
		if _, o, _ := b.mounter.Mounted(b.path(at)); !o.ReadOnly {
			t.Errorf("%s is writable", at)
		}
	}
}

func TestOnePodAtATime(t *testing.T) {
	b := newBench(t)
	b.create(t, singleWriter)
	must(t, b.stage(t, b.node, "staging", singleWriter))
	must(t, b.publish(t, "pod", singleWriter, false))
	must(t, b.publish(t, "pod", singleWriter, false))
	err := b.publish(t, "second", singleWriter, false)
	wantKind(t, "second pod", err, storage.InUse)
	if err != nil && !strings.Contains(err.Error(), b.path("pod")) {
		t.Errorf("%v does not name the first target", err)
	}
	must(t, b.unpublish(t, "pod"))
	must(t, b.publish(t, "second", singleWriter, false))
}

func TestManyPodsOnOneNode(t *testing.T) {
	b := newBench(t)
	b.create(t, multiWriter)
	must(t, b.stage(t, b.node, "staging", multiWriter))
	must(t, b.publish(t, "pod", multiWriter, false))
	must(t, b.publish(t, "second", multiWriter, false))
	must(t, b.publish(t, "reader", multiWriter, true))
	if _, o, _ := b.mounter.Mounted(b.path("reader")); !o.ReadOnly {
		t.Error("a read-only publish is writable")
	}
}

func TestFailedBindLeavesNoFolder(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	b.mounter.fail["Bind"] = storage.Errorf(storage.Unavailable, "no")
	wantKind(t, "publish", b.publish(t, "pod", everyone, false), storage.Unavailable)
	if _, err := os.Lstat(b.path("pod")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

func TestBusyUnmountIsTold(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.publish(t, "pod", everyone, false))
	b.mounter.fail["Unmount"] = storage.Errorf(storage.InUse, "EBUSY")
	err := b.unpublish(t, "pod")
	wantKind(t, "unpublish", err, storage.InUse)
	if err != nil && !strings.Contains(err.Error(), "the mount is busy") {
		t.Errorf("%v does not say that the mount is busy", err)
	}
	if b.holder(t) != "node-1" {
		t.Error("the lease is gone while the mount is there")
	}
}

// TestUnpublishRemovesNothingButAnEmptyFolder: not what is below a mount that is
// still there, not what somebody put into the folder.
func TestUnpublishRemovesNothingButAnEmptyFolder(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, os.Mkdir(b.path("pod"), 0o700))
	must(t, os.WriteFile(b.path("pod/data"), []byte("mine"), 0o600))
	wantKind(t, "content", b.unpublish(t, "pod"), storage.InUse)
	b.node.table = alwaysMounted{}
	must(t, os.Mkdir(b.path("empty"), 0o700))
	wantKind(t, "mount point", b.unpublish(t, "empty"), storage.InUse)
	for _, path := range []string{"pod/data", "empty"} {
		if _, err := os.Lstat(b.path(path)); err != nil {
			t.Error(err)
		}
	}
}

type alwaysMounted struct{}

func (alwaysMounted) Mounted(string) (bool, BindOptions, error) { return true, BindOptions{}, nil }

func (alwaysMounted) Context(string) (string, error) { return "", nil }

func TestNobodyUnmountsAnotherVolume(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.publish(t, "pod", everyone, false))
	_, err := b.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "other", TargetPath: b.path("pod")})
	wantKind(t, "unpublish", err, storage.InUse)
	_, err = b.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "other", StagingTargetPath: b.path("staging")})
	wantKind(t, "unstage", err, storage.InUse)
	wantKind(t, "unpublish of the staging path", b.unpublish(t, "staging"), storage.Invalid)
}

func TestStats(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.publish(t, "pod", everyone, false))
	ask := func(path string) (*csi.NodeGetVolumeStatsResponse, error) {
		return b.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "photos", VolumePath: path})
	}
	resp, err := ask(b.path("pod"))
	must(t, err)
	if u := resp.GetUsage()[0]; u.GetUnit() != csi.VolumeUsage_BYTES || u.GetTotal() <= 0 || u.GetUsed() <= 0 {
		t.Errorf("usage = %v", u)
	}
	_, err = ask(b.path("elsewhere"))
	wantKind(t, "elsewhere", err, storage.NotFound)
	delete(b.mounter.mu.at, b.path("pod"))
	_, err = ask(b.path("pod"))
	wantKind(t, "a mount that is gone", err, storage.NotFound)
}

// measureHere asks the kernel in this process: nothing hangs in these tests.
func measureHere(_ context.Context, path string) (Usage, error) { return Statfs(path) }

// TestStatsNeverHang: however many ask, one process waits in the kernel; it is told
// to end at the deadline, also when it does not obey at once.
func TestStatsNeverHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, ended atomic.Int32
		release := make(chan struct{})
		b := newBench(t)
		b.node.stats.measure = func(ctx context.Context, _ string) (Usage, error) {
			calls.Add(1)
			<-ctx.Done()
			ended.Add(1)
			<-release
			return Usage{}, ctx.Err()
		}
		b.create(t)
		must(t, b.stage(t, b.node, "staging", everyone))
		ask := func(ctx context.Context) (*csi.NodeGetVolumeStatsResponse, error) {
			return b.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "photos", VolumePath: b.path("staging")})
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		_, err := ask(left)
		if !storage.IsContext(err) || ended.Load() != 0 {
			t.Errorf("a caller that left: %v, and %d measurements ended with it", err, ended.Load())
		}
		for range 3 {
			_, err := ask(t.Context())
			if !storage.IsContext(err) {
				t.Errorf("hung: %v", err)
			}
		}
		synctest.Wait()
		if calls.Load() != 1 || ended.Load() != 1 {
			t.Errorf("%d measurements were begun, %d were told to end; want one", calls.Load(), ended.Load())
		}
		close(release)
		synctest.Wait()
		b.node.stats.measure = func(context.Context, string) (Usage, error) { return Usage{Total: 1}, nil }
		resp, err := ask(t.Context())
		if err != nil || resp.GetUsage()[0].GetTotal() != 1 {
			t.Errorf("afterwards: %v, %v", resp, err)
		}
	})
}

// TestStatsAreNeverZero: what could not be measured is an error.
func TestStatsAreNeverZero(t *testing.T) {
	for what, measured := range map[string]error{
		"no size": nil, "an error": errors.New("no"), "the end of the session": fmt.Errorf("child: %w", syscall.ENOTCONN), "its end": context.DeadlineExceeded,
	} {
		if u, err := checkUsage(Usage{}, measured); err == nil {
			t.Errorf("%s: %+v", what, u)
		}
	}
}

func TestNodeExpand(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	expand := func(size int64) (*csi.NodeExpandVolumeResponse, error) {
		return b.node.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
			VolumeId: "photos", VolumePath: b.path("staging"), CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		})
	}
	resp, err := expand(1 << 30)
	if err != nil || resp.GetCapacityBytes() != 1<<30 {
		t.Errorf("%v, %v", resp, err)
	}
	_, err = expand(1 << 31)
	wantKind(t, "more than the record", err, storage.OutOfRange)
}

func TestNodeOptions(t *testing.T) {
	for _, o := range []NodeOptions{
		{}, {NodeID: strings.Repeat("x", 257)}, {NodeID: "x", MaxVolumes: -1}, {NodeID: "x", LeaseFor: time.Second, RenewEvery: time.Second},
	} {
		_, err := NewNode(NodeDeps{}, o)
		wantKind(t, "options", err, storage.Invalid)
	}
}

func TestKernelTable(t *testing.T) {
	for path, want := range map[string]bool{"/proc": true, "/proc/": true, "/proc/self/../": true, t.TempDir(): false, "/nowhere/at/all": false} {
		if got, _, err := (kernelTable{}).Mounted(path); err != nil || got != want {
			t.Errorf("%s mounted = %v, %v", path, got, err)
		}
	}
	link := filepath.Join(t.TempDir(), "root")
	must(t, os.Symlink("/", link))
	if got, _, err := (kernelTable{}).Mounted(filepath.Join(link, "proc")); err != nil || !got {
		t.Errorf("through a link: %v, %v", got, err)
	}
}
