package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// inlineVolumeID is as the kubelet makes them.
const inlineVolumeID = "csi-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func inlineRequest(target string, attributes ...string) *csi.NodePublishVolumeRequest {
	given := map[string]string{
		inlineKey: "true", podUID: "uid-1", podNamespace: "team", podName: "web-0", ignoredPrefix + "serviceAccount.name": "default",
	}
	for i := 0; i < len(attributes); i += 2 {
		given[attributes[i]] = attributes[i+1]
	}
	return &csi.NodePublishVolumeRequest{VolumeId: inlineVolumeID, TargetPath: target, VolumeCapability: mountCap(writer), VolumeContext: given}
}

// TestInlineAttributes: any pod's author writes them, so what could reach another bucket
// or keep one is refused by name, and nothing is made.
func TestInlineAttributes(t *testing.T) {
	b := newBench(t)
	for name, value := range map[string]string{
		"bucketName": "photos", "bucket": "photos", "prefix": "a", "path": "/buckets/photos", "onDelete": "retain", "replication": "001", "diskType": "ssd",
		"dataCenter": "dc1", "accessKey": "x", "secretKey": "x", "AWS_ACCESS_KEY_ID": "x", "collection": "x", "endpoint": "x", "siz": "1Gi",
		"size": "-1", "uid": "root", "fileMode": "9", "mountOptions": "noexec", "durability": "disk", "commitDelay": "1s",
	} {
		_, err := b.node.NodePublishVolume(t.Context(), inlineRequest(b.path("pod"), name, value))
		wantKind(t, name, err, storage.Invalid)
		if err == nil || !strings.Contains(err.Error(), name) && name != "mountOptions" && name != "siz" {
			t.Errorf("%s: %v", name, err)
		}
	}
	secret := inlineRequest(b.path("pod"))
	secret.Secrets = map[string]string{"accessKey": "hunter2"}
	shared := inlineRequest(b.path("pod"))
	shared.VolumeCapability = mountCap(everyone)
	nobody := inlineRequest(b.path("pod"), podUID, "")
	for what, req := range map[string]*csi.NodePublishVolumeRequest{"nodePublishSecretRef": secret, "MULTI_NODE_MULTI_WRITER": shared, "podInfoOnMount": nobody} {
		_, err := b.node.NodePublishVolume(t.Context(), req)
		wantKind(t, what, err, storage.Invalid)
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := b.store.ListRecords(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("made: %v, %v", list, err)
	}
	if _, err := os.Lstat(b.path("pod")); !os.IsNotExist(err) {
		t.Errorf("a folder was made: %v", err)
	}
}

// TestInlineMaxSize: a size above the administrator's bound is refused, with both, before
// anything is made; what is there already stays when the bound is lowered.
func TestInlineMaxSize(t *testing.T) {
	b := newBench(t)
	b.node.o.InlineMaxSize = 10 << 30
	err := b.publishInline(t, b.controller, inlineRequest(b.path("pod"), "size", "11Gi"))
	wantKind(t, "11 of 10 GiB", err, storage.OutOfRange)
	for _, word := range []string{"size", "11Gi", "10Gi", "claim"} {
		if err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("%v does not say %s", err, word)
		}
	}
	b.nothingLeft(t)
	must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"), "size", "10Gi")))
	b.node.o.InlineMaxSize = 1 << 30
	must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"), "size", "10Gi")))
	b.node = b.otherNode(t, "node-1", newFakeMounter()) // mounted anew, after a reboot
	b.node.o.InlineMaxSize = 1 << 30
	must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"), "size", "10Gi")))
}

// tend does at once what a controller finds to do.
func tend(ctx context.Context, c *Controller) { c.tendInline(ctx, func(do func()) { do() }) }

// publishInline publishes with a controller that comes when it is asked for.
func (b *bench) publishInline(t *testing.T, c *Controller, req *csi.NodePublishVolumeRequest) error {
	t.Helper()
	b.node.o.InlineWait = 20 * time.Millisecond
	var err error
	for range 3 {
		if _, err = b.node.NodePublishVolume(t.Context(), req); !storage.Is(err, storage.Unavailable) {
			return err
		}
		tend(t.Context(), c)
	}
	return err
}

func (b *bench) unpublishInline(t *testing.T) error {
	t.Helper()
	_, err := b.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: inlineVolumeID, TargetPath: b.path("pod")})
	return err
}

func (b *bench) inlineRecord(t *testing.T) (storage.Record, error) {
	t.Helper()
	return b.store.GetRecord(t.Context(), VolumeID(inlineVolumeID))
}

// nothingLeft: no record, bucket, mount or folder.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	if list, err := b.store.ListRecords(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("records left: %v, %v", list, err)
	}
	if list := b.store.BucketNames(); len(list) > 0 {
		t.Errorf("buckets left: %v", list)
	}
	if len(b.mounter.mu.at) > 0 {
		t.Errorf("mounted: %v", b.mounter.mu.at)
	}
	if _, err := os.Lstat(b.path("pod")); !os.IsNotExist(err) {
		t.Errorf("the pod's folder: %v", err)
	}
}

func TestLifeOfAnInlineVolume(t *testing.T) {
	b := newBench(t)
	req := inlineRequest(b.path("pod"), "size", "2Gi", "uid", "7", "mountOptions", "noatime,rw")
	for range 2 { // the kubelet publishes what is published again and again
		must(t, b.publishInline(t, b.controller, req))
	}
	if got := b.mounter.mu.configs; len(got) != 1 || !got[0].Inline || got[0].Epoch != 1 || *got[0].Objects.UID != 7 {
		t.Errorf("configs: %+v", got)
	}
	r, err := b.inlineRecord(t)
	must(t, err)
	if r.Capacity != 2<<30 || r.Phase != storage.Ready || r.Inline.Pod != (storage.Pod{UID: "uid-1", Namespace: "team", Name: "web-0"}) || r.Nodes()[0] != "node-1" {
		t.Errorf("record: %+v", r)
	}
	wantKind(t, "read-only", b.publishInline(t, b.controller, &csi.NodePublishVolumeRequest{VolumeId: req.VolumeId, TargetPath: req.TargetPath, VolumeCapability: req.VolumeCapability, VolumeContext: req.VolumeContext, Readonly: true}), storage.Exists)
	wantKind(t, "elsewhere", b.publishInline(t, b.controller, inlineRequest(b.path("other"), "size", "2Gi")), storage.Exists)
	_, err = b.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: inlineVolumeID, VolumePath: b.path("pod")})
	must(t, err)
	health, err := b.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: inlineVolumeID, VolumePublishPath: b.path("pod")})
	if err != nil || len(health.GetVolumeHealth().GetHealthStatuses()) > 0 {
		t.Errorf("health: %v, %v", health, err)
	}
	_, err = b.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: string(r.ID)})
	wantKind(t, "delete while it is used", err, storage.InUse)
	tend(t.Context(), b.controller) // nothing to do
	// A node that was started again knows all that it has to know.
	b.node = b.otherNode(t, "node-1", b.mounter)
	for range 2 {
		must(t, b.unpublishInline(t))
	}
	wantKind(t, "published again before it is deleted", b.publishInline(t, b.controller, req), storage.InUse)
	must(t, b.unpublishInline(t))
	tend(t.Context(), b.controller)
	b.nothingLeft(t)
	must(t, b.unpublishInline(t))
}

// crashingMounter is a coat around what a node does on its machine.
type crashingMounter struct {
	*fakeMounter
	c *crasher
}

func (m crashingMounter) Mount(ctx context.Context, id, target string, o MountOptions, config []byte) error {
	return m.c.step(func() error { return m.fakeMounter.Mount(ctx, id, target, o, config) })
}

func (m crashingMounter) Unmount(ctx context.Context, target string) error {
	return m.c.step(func() error { return m.fakeMounter.Unmount(ctx, target) })
}

func (m crashingMounter) Settle(ctx context.Context, id string) error {
	return m.c.step(func() error { return m.fakeMounter.Settle(ctx, id) })
}

// TestInlineFinishesAfterACrash: node and controller die at each step of the volume's
// life, before it took effect and after. What is repeated ends well, and with the pod
// nothing is left; also when the pod is gone by then.
func TestInlineFinishesAfterACrash(t *testing.T) {
	for _, repeated := range []bool{true, false} {
		for _, after := range []bool{false, true} {
			for n, died := 1, true; died; n++ {
				t.Run(fmt.Sprintf("repeated=%v step %d after=%v", repeated, n, after), func(t *testing.T) {
					b := newBench(t)
					c := &crasher{Store: b.store, left: n, after: after}
					life := func() error {
						b.node.mounter, b.node.records = crashingMounter{b.mounter, c}, c
						if err := b.publishInline(t, c.controller(), inlineRequest(b.path("pod"))); err != nil {
							return err
						}
						if err := b.unpublishInline(t); err != nil {
							return err
						}
						tend(t.Context(), c.controller())
						return nil
					}
					err := life()
					died = c.dead
					if !died && err != nil || died && err != nil && !errors.Is(err, errCrash) && !storage.Is(err, storage.Unavailable) {
						t.Fatal(err)
					}
					if died {
						c = &crasher{Store: b.store, left: 1 << 30}
						b.node = b.otherNode(t, "node-1", b.mounter)
						if repeated {
							// It is refused where the pod's end was begun: then the end is repeated.
							if err := life(); err != nil && !storage.Is(err, storage.InUse) {
								t.Fatalf("repeated: %v", err)
							}
						}
						must(t, b.unpublishInline(t))
						tend(t.Context(), c.controller())
						tend(t.Context(), c.controller())
					}
					b.nothingLeft(t)
				})
				if n > 60 {
					t.Fatal("it never ends")
				}
			}
		}
	}
}

// TestInlineOfALostNode: the API's word that the pod is gone deletes nothing while the
// node renews its lease, and all once that has stood still.
func TestInlineOfALostNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"))))
		pods, err := storage.InlinePods(t.Context(), b.store)
		if err != nil || len(pods) != 1 || pods[0].UID != "uid-1" {
			t.Fatalf("pods: %v, %v", pods, err)
		}
		if n, err := storage.PodGone(t.Context(), b.store, "uid-2"); n != 0 || err != nil {
			t.Errorf("another pod: %d, %v", n, err)
		}
		tend(t.Context(), b.controller)
		if n, err := storage.PodGone(t.Context(), b.store, "uid-1"); n != 1 || err != nil {
			t.Errorf("the pod: %d, %v", n, err)
		}
		if n, err := storage.PodGone(t.Context(), b.store, "uid-1"); n != 0 || err != nil {
			t.Errorf("the pod again: %d, %v", n, err)
		}
		if pods, err := storage.InlinePods(t.Context(), b.store); err != nil || len(pods) != 0 {
			t.Errorf("pods: %v, %v", pods, err)
		}
		for range 10 { // the node is cut off from the API alone
			time.Sleep(storage.LeaseFor / 3) //nolint:forbidigo // in a bubble
			b.node.renewAll(t.Context())
			tend(t.Context(), b.controller)
		}
		if _, err := b.inlineRecord(t); err != nil {
			t.Fatalf("a running pod has lost its volume: %v", err)
		}
		must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"))))
		time.Sleep(storage.LeaseFor) //nolint:forbidigo // in a bubble
		tend(t.Context(), b.controller)
		if _, err := b.inlineRecord(t); err != nil {
			t.Fatalf("deleted within the lease's grace: %v", err)
		}
		time.Sleep(storage.LeaseGrace + time.Second) //nolint:forbidigo // in a bubble
		tend(t.Context(), b.controller)
		if _, err := b.inlineRecord(t); !storage.Is(err, storage.NotFound) {
			t.Fatalf("not deleted: %v", err)
		}
		// The node comes back, and the kubelet takes away what is left of the pod.
		must(t, b.unpublishInline(t))
		b.nothingLeft(t)
		// A pod that was never mounted.
		b.node.o.InlineWait = 20 * time.Millisecond
		_, err = b.node.NodePublishVolume(t.Context(), inlineRequest(b.path("pod")))
		wantKind(t, "without a controller", err, storage.Unavailable)
		_, err = storage.PodGone(t.Context(), b.store, "uid-1")
		must(t, err)
		_, err = b.node.NodePublishVolume(t.Context(), inlineRequest(b.path("pod")))
		wantKind(t, "a pod that is gone", err, storage.InUse)
		tend(t.Context(), b.controller)
		b.nothingLeft(t)
	})
}

// TestInlineIsNobodyElses: ids meet by chance or by intent, and nobody gets another's.
func TestInlineIsNobodyElses(t *testing.T) {
	b := newBench(t)
	must(t, b.publishInline(t, b.controller, inlineRequest(b.path("pod"))))
	_, err := b.controller.CreateVolume(t.Context(), ask(string(VolumeID(inlineVolumeID))))
	wantKind(t, "a claim of that name", err, storage.Exists)
	must(t, b.unpublishInline(t))
	tend(t.Context(), b.controller)
	b.nothingLeft(t)
	_, err = b.controller.CreateVolume(t.Context(), ask(string(VolumeID(inlineVolumeID))))
	must(t, err)
	wantKind(t, "inline", b.publishInline(t, b.controller, inlineRequest(b.path("pod"))), storage.Exists)
	must(t, b.unpublishInline(t))
	tend(t.Context(), b.controller)
	if _, err := b.inlineRecord(t); err != nil {
		t.Errorf("the claim's volume is gone: %v", err)
	}
	other := memory.New()
	if n, err := storage.PodGone(t.Context(), other, ""); n != 0 || !storage.Is(err, storage.Invalid) {
		t.Errorf("no UID: %d, %v", n, err)
	}
}
