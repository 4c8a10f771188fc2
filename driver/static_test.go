package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// stageStatic stages a PersistentVolume that an administrator has written.
func stageStatic(t *testing.T, n *Node, handle, at string, m mode, attributes map[string]string) error {
	t.Helper()
	_, err := n.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: handle, StagingTargetPath: at, VolumeCapability: mountCap(m), VolumeContext: attributes})
	return err
}

// tendStatics does at once what a controller finds to do.
func tendStatics(ctx context.Context, c *Controller) { c.tendStatic(ctx, func(do func()) { do() }) }

// untilAnswered repeats a call as a kubelet does, while a controller looks between.
func untilAnswered(t *testing.T, n *Node, c *Controller, call func() error) error {
	t.Helper()
	n.o.InlineWait = 20 * time.Millisecond
	var err error
	for range 4 {
		if err = call(); !storage.Is(err, storage.Unavailable) {
			return err
		}
		tendStatics(t.Context(), c)
	}
	return err
}

// TestStaticBucket: a bucket that was there is mounted by a PersistentVolume alone, and
// outlives it, whatever its reclaim policy is.
func TestStaticBucket(t *testing.T) {
	b := newBench(t)
	must(t, b.store.CreateBucket(t.Context(), "photos"))
	attributes := map[string]string{"bucketName": "photos", "size": "2Gi", "uid": "7", "storage.kubernetes.io/csiProvisionerIdentity": "1-2-csi.holdfast.io"}
	stage := func(n *Node, at string) error {
		return untilAnswered(t, n, b.controller, func() error { return stageStatic(t, n, "my-photos", b.path(at), everyone, attributes) })
	}
	must(t, stage(b.node, "staging"))
	must(t, stage(b.node, "staging"))
	if got := b.mounter.mu.configs; len(got) != 1 || got[0].Bucket != "photos" || *got[0].Objects.UID != 7 {
		t.Errorf("configs: %+v", got)
	}
	r, err := b.store.GetRecord(t.Context(), "my-photos")
	if err != nil || !r.Adopted || r.Phase != storage.Ready || r.Capacity != 2<<30 || r.OnDelete != storage.Retain || r.Keys.Secret == "" || r.Access != storage.Shared {
		t.Errorf("record: %+v, %v", r, err)
	}
	other := b.otherNode(t, "node-2", newFakeMounter())
	must(t, stage(other, "staging2"))

	// The handle is the volume's id from now on; attributes are not needed, and must not
	// say something else.
	must(t, stageStatic(t, b.node, "my-photos", b.path("staging"), everyone, nil))
	for name, value := range map[string]string{"bucketName": "other", "uid": "8", "prefix": "a"} {
		changed := maps.Clone(attributes)
		changed[name] = value
		if err := stageStatic(t, b.node, "my-photos", b.path("staging"), everyone, changed); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), value) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
	_, err = b.controller.CreateVolume(t.Context(), ask("my-photos"))
	wantKind(t, "a claim of that name", err, storage.Exists)

	remove := func() error {
		_, err := b.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "my-photos"})
		return err
	}
	wantKind(t, "delete while it is used", remove(), storage.InUse)
	for n, at := range map[*Node]string{b.node: "staging", other: "staging2"} {
		_, err := n.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "my-photos", StagingTargetPath: b.path(at)})
		must(t, err)
	}
	must(t, remove())
	if there, err := b.store.BucketExists(t.Context(), "photos"); err != nil || !there {
		t.Fatalf("the bucket is gone: %v", err)
	}
	must(t, stage(b.node, "staging")) // and it can be had again
}

// TestAttributesOfAStaticVolume: what cannot be is refused with the attribute, its value and what is
// allowed, and leaves no record.
func TestAttributesOfAStaticVolume(t *testing.T) {
	b := newBench(t)
	must(t, b.store.CreateBucket(t.Context(), "photos"))
	for _, test := range []struct {
		name, value string
		words       []string
	}{
		{"onDelete", "delete", []string{"delete", "retain"}},
		{"onDelete", "archive", []string{"archive", "retain"}},
		{"size", "much", []string{"much", "10Gi"}},
		{"replication", "001", []string{"bucketName"}},
		{"bucketNam", "x", []string{"bucketName"}},
		{"secretKey", "hunter2", []string{"bucketName"}},
		{"uid", "root", []string{"root", "number"}},
		{"bucketName", "Photos", []string{"Photos"}},
		{"bucketName", "${pvc.name}", []string{"pvc.name", "write the names out"}},
		{"prefix", "/../x", []string{"/../x"}},
		{"durability", "node", []string{"node"}}, // not of a single node
	} {
		attributes := map[string]string{"bucketName": "photos", test.name: test.value}
		err := stageStatic(t, b.node, "my-photos", b.path("staging"), everyone, attributes)
		wantKind(t, test.name, err, storage.Invalid)
		for _, w := range append(test.words, test.name) {
			if err != nil && (!strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("%s=%s: %v does not say %s", test.name, test.value, err, w)
			}
		}
	}
	err := stageStatic(t, b.node, "My_Photos", b.path("staging"), everyone, map[string]string{"bucketName": "photos"})
	wantKind(t, "a handle that can be no id", err, storage.Invalid)
	if err != nil && (!strings.Contains(err.Error(), "volumeHandle") || !strings.Contains(err.Error(), "My_Photos") || !strings.Contains(err.Error(), "allowed")) {
		t.Error(err)
	}
	for what, attributes := range map[string]map[string]string{"nothing": nil, "no bucket": {"size": "1Gi"}, "a context that was copied": {"bucket": "photos", "name": "photos", "access": "shared"}} {
		err := stageStatic(t, b.node, "my-photos", b.path("staging"), everyone, attributes)
		wantKind(t, what, err, storage.NotFound)
		if err != nil && (!strings.Contains(err.Error(), "volumeHandle") || !strings.Contains(err.Error(), "bucketName")) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := b.store.ListRecords(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("made: %v, %v", list, err)
	}
}

// TestStaticRefused: the controller judges the bucket, and its word reaches the caller. A
// bucket that is made later is let in.
func TestStaticRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		_, err := b.controller.CreateVolume(t.Context(), ask("of-a-claim"))
		must(t, err)
		for bucket, want := range map[string]storage.Kind{"nowhere": storage.NotFound, "of-a-claim": storage.Exists} {
			handle := "pv-" + bucket
			stage := func(attributes map[string]string) error {
				return untilAnswered(t, b.node, b.controller, func() error { return stageStatic(t, b.node, handle, b.path(handle), writer, attributes) })
			}
			err := stage(map[string]string{"bucketName": bucket, "prefix": "a"})
			wantKind(t, bucket, err, want)
			if err == nil || !strings.Contains(err.Error(), bucket) {
				t.Errorf("%v does not name %s", err, bucket)
			}
			pass(refusalKept + time.Second)
			tendStatics(t.Context(), b.controller)
			if _, err := b.store.GetRecord(t.Context(), storage.VolumeID(handle)); !storage.Is(err, storage.NotFound) {
				t.Errorf("the refusal is still there: %v", err)
			}
			if bucket == "nowhere" {
				if there, err := b.store.BucketExists(t.Context(), "nowhere"); there || err != nil {
					t.Errorf("the bucket was made: %v", err)
				}
				must(t, b.store.CreateBucket(t.Context(), "nowhere"))
				must(t, stage(map[string]string{"bucketName": bucket, "prefix": "a"}))
			}
		}
		if there, err := b.store.BucketExists(t.Context(), "of-a-claim"); err != nil || !there {
			t.Errorf("the claim's bucket is gone: %v", err)
		}
	})
}

// TestStaticFinishesAfterACrash: node and controller die at each step, before it took
// effect and after. What is repeated ends well, and the bucket stays.
func TestStaticFinishesAfterACrash(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n, died := 1, true; died; n++ {
			t.Run(fmt.Sprintf("step %d after=%v", n, after), func(t *testing.T) {
				b := newBench(t)
				must(t, b.store.CreateBucket(t.Context(), "photos"))
				c := &crasher{Store: b.store, left: n, after: after}
				life := func() error {
					b.node.records = c
					err := untilAnswered(t, b.node, c.controller(), func() error {
						return stageStatic(t, b.node, "my-photos", b.path("staging"), writer, map[string]string{"bucketName": "photos"})
					})
					if err == nil {
						err = b.unstageOf(t, "my-photos")
					}
					if err == nil {
						_, err = c.controller().DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "my-photos"})
					}
					return err
				}
				err := life()
				died = c.dead
				if !died && err != nil || died && err != nil && !errors.Is(err, errCrash) && !storage.Is(err, storage.Unavailable) {
					t.Fatal(err)
				}
				c = &crasher{Store: b.store, left: 1 << 30}
				if died {
					if err := life(); storage.Is(err, storage.InUse) { // its deletion was begun
						_, err = c.controller().DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "my-photos"})
						must(t, err)
					} else {
						must(t, err)
					}
				}
				if list, err := b.store.ListRecords(t.Context(), "", 10); err != nil || len(list) > 0 {
					t.Errorf("records left: %v, %v", list, err)
				}
				if there, err := b.store.BucketExists(t.Context(), "photos"); err != nil || !there {
					t.Errorf("the bucket is gone: %v", err)
				}
			})
			if n > 60 {
				t.Fatal("it never ends")
			}
		}
	}
}

func (b *bench) unstageOf(t *testing.T, id string) error {
	t.Helper()
	_, err := b.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: b.path("staging")})
	return err
}

// TestStaticIsForAdministrators: a pod's author has no way to a bucket, by whatever call
// the kubelet makes for inline volumes.
func TestStaticIsForAdministrators(t *testing.T) {
	b := newBench(t)
	must(t, b.store.CreateBucket(t.Context(), "photos"))
	for range 2 {
		_, err := b.node.NodePublishVolume(t.Context(), inlineRequest(b.path("pod"), "bucketName", "photos"))
		wantKind(t, "an inline volume that names a bucket", err, storage.Invalid)
		tendStatics(t.Context(), b.controller)
		tend(t.Context(), b.controller)
	}
	if list, err := b.store.ListRecords(t.Context(), "", 10); err != nil || len(list) > 0 {
		t.Errorf("made: %v, %v", list, err)
	}
}
