package taint

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// fakeNode is one node of the API server. It applies the one patch that is sent.
type fakeNode struct {
	mu      sync.Mutex
	node    corev1.Node
	drivers []storagev1.CSINodeDriver // nil for no CSINode
	// before is called ahead of a patch.
	before  func()
	patches int
}

func (f *fakeNode) Get(context.Context, string, metav1.GetOptions) (*corev1.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node.DeepCopy(), nil
}

func (f *fakeNode) Patch(_ context.Context, _ string, t types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		f.before()
	}
	f.patches++
	var steps []struct {
		Op, Path string
		Value    json.RawMessage
	}
	if err := json.Unmarshal(data, &steps); err != nil || t != types.JSONPatchType || len(steps) != 2 || steps[0].Op != "test" {
		return nil, errors.New("not the patch that is expected: " + string(data))
	}
	var version string
	if err := json.Unmarshal(steps[0].Value, &version); err != nil {
		return nil, err
	}
	if version != f.node.ResourceVersion {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Node"}, "n", nil)
	}
	f.node.Spec.Taints = nil
	return f.node.DeepCopy(), json.Unmarshal(steps[1].Value, &f.node.Spec.Taints)
}

// register says which drivers the node has.
func (f *fakeNode) register(drivers []storagev1.CSINodeDriver) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drivers = drivers
}

// patched is how many patches came.
func (f *fakeNode) patched() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.patches
}

type fakeCSINode struct{ *fakeNode }

func (f fakeCSINode) Get(context.Context, string, metav1.GetOptions) (*storagev1.CSINode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drivers == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "csinodes"}, "n")
	}
	return &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: f.drivers}}, nil
}

var (
	ours   = corev1.Taint{Key: Key, Effect: corev1.TaintEffectNoSchedule}
	theirs = corev1.Taint{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}
	newer  = corev1.Taint{Key: "node.kubernetes.io/unreachable", Effect: corev1.TaintEffectNoExecute}
)

// TestRemove: the taint stays until the driver is registered, and goes alone, whoever
// changes the node at the same time.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeNode{node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", ResourceVersion: "1"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{theirs, ours}}}}
		f.before = func() {
			if f.patches == 0 { // somebody is faster
				f.node.ResourceVersion, f.node.Spec.Taints = "2", append(f.node.Spec.Taints, newer)
			}
		}
		r := &Remover{Nodes: f, CSINodes: fakeCSINode{f}, Node: "n", Driver: "d", Log: slog.New(slog.DiscardHandler)}
		done := make(chan error)
		go func() { done <- r.Remove(t.Context()) }()
		for _, drivers := range [][]storagev1.CSINodeDriver{nil, {{Name: "another"}}} {
			f.register(drivers)
			time.Sleep(5 * time.Second) //nolint:forbidigo // time is free here
			synctest.Wait()
			if f.patched() != 0 {
				t.Fatalf("the taint goes while the node's drivers are %v", drivers)
			}
		}
		f.register([]storagev1.CSINodeDriver{{Name: "another"}, {Name: "d"}})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got, want := f.node.Spec.Taints, []corev1.Taint{theirs, newer}; !slices.Equal(got, want) || f.patches != 2 {
			t.Errorf("after %d patches the taints are %v, want %v", f.patches, got, want)
		}
	})
}

// TestRemoveNothing: a node without the taint is not changed.
func TestRemoveNothing(t *testing.T) {
	f := &fakeNode{node: corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{theirs}}}, drivers: []storagev1.CSINodeDriver{{Name: "d"}}}
	r := &Remover{Nodes: f, CSINodes: fakeCSINode{f}, Node: "n", Driver: "d", Log: slog.New(slog.DiscardHandler)}
	if err := r.Remove(t.Context()); err != nil || f.patches != 0 {
		t.Errorf("%v, %d patches", err, f.patches)
	}
}
