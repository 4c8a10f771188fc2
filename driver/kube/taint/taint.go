package taint

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Key of the taint. Its value and effect do not matter.
const Key = "holdfast.io/agent-not-ready"

// lookEvery: pods wait for it.
const lookEvery = 2 * time.Second

// Nodes are client-go's.
type Nodes interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Node, error)
	Patch(ctx context.Context, name string, t types.PatchType, data []byte, o metav1.PatchOptions, sub ...string) (*corev1.Node, error)
}

// CSINodes are client-go's.
type CSINodes interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*storagev1.CSINode, error)
}

// Remover takes the taint from one node.
type Remover struct {
	Nodes    Nodes
	CSINodes CSINodes
	// Node is its name, Driver the one that must be registered on it.
	Node, Driver string
	Log          *slog.Logger
}

// New makes a Remover. No I/O.
func New(client kubernetes.Interface, node, driver string, log *slog.Logger) *Remover {
	return &Remover{Nodes: client.CoreV1().Nodes(), CSINodes: client.StorageV1().CSINodes(), Node: node, Driver: driver, Log: log}
}

// Remove returns when the driver is registered on the node and the taint is gone, or when
// ctx ends, with its error. What the API server refuses is logged and tried again.
func (r *Remover) Remove(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		done, err := r.try(ctx)
		if done {
			return nil
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			r.Log.WarnContext(ctx, "the startup taint stays for now", "node", r.Node, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *Remover) try(ctx context.Context) (done bool, err error) {
	csi, err := r.CSINodes.Get(ctx, r.Node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil // no driver has ever been registered there
	}
	if err != nil {
		return false, fmt.Errorf("read CSINode %s: %w", r.Node, err)
	}
	if !slices.ContainsFunc(csi.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == r.Driver }) {
		return false, nil
	}
	node, err := r.Nodes.Get(ctx, r.Node, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("read Node %s: %w", r.Node, err)
	}
	kept := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Key == Key })
	if len(kept) == len(node.Spec.Taints) {
		return true, nil
	}
	// A list of taints can only be replaced whole: nobody else's change may be lost with it.
	patch, err := json.Marshal([]any{
		map[string]any{"op": "test", "path": "/metadata/resourceVersion", "value": node.ResourceVersion},
		map[string]any{"op": "replace", "path": "/spec/taints", "value": kept},
	})
	if err != nil {
		return false, err
	}
	if _, err := r.Nodes.Patch(ctx, r.Node, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return false, fmt.Errorf("remove the taint of Node %s: %w", r.Node, err)
	}
	r.Log.InfoContext(ctx, "the startup taint is removed", "node", r.Node)
	return true, nil
}
