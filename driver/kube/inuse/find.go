package inuse

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// page is how many objects are read at once.
const page = 500

// Use is one pod's volume.
type Use struct {
	// Pod is namespace/name, Node where it runs.
	Pod, Node string
	// Claim is its name, empty for an inline volume; Volume is the name in the pod.
	Claim, Volume string
}

// String says it in one line.
func (u Use) String() string {
	what := "claim " + u.Claim
	if u.Claim == "" {
		what = "inline volume " + u.Volume
	}
	return fmt.Sprintf("pod %s on node %s has %s", u.Pod, u.Node, what)
}

// Deleting returns the names of the driver's volumes that Kubernetes is about to delete, or
// would: without the driver they stay for ever.
func Deleting(ctx context.Context, client kubernetes.Interface, driver string) (names []string, err error) {
	err = pages(func(o metav1.ListOptions) (string, error) {
		list, err := client.CoreV1().PersistentVolumes().List(ctx, o)
		if err != nil {
			return "", fmt.Errorf("list PersistentVolumes: %w", err)
		}
		for _, v := range list.Items {
			if v.Spec.CSI == nil || v.Spec.CSI.Driver != driver {
				continue
			}
			released := v.Status.Phase == corev1.VolumeReleased && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
			if released || v.DeletionTimestamp != nil {
				names = append(names, v.Name)
			}
		}
		return list.Continue, nil
	})
	return names, err
}

// Find returns what pods have of the driver's volumes. Pods that are over, or that no
// node has yet, have nothing mounted.
func Find(ctx context.Context, client kubernetes.Interface, driver string) ([]Use, error) {
	claims := map[string]bool{} // by namespace/name
	err := pages(func(o metav1.ListOptions) (string, error) {
		list, err := client.CoreV1().PersistentVolumes().List(ctx, o)
		if err != nil {
			return "", fmt.Errorf("list PersistentVolumes: %w", err)
		}
		for _, v := range list.Items {
			if csi, claim := v.Spec.CSI, v.Spec.ClaimRef; csi != nil && csi.Driver == driver && claim != nil {
				claims[claim.Namespace+"/"+claim.Name] = true
			}
		}
		return list.Continue, nil
	})
	if err != nil {
		return nil, err
	}
	var uses []Use
	err = pages(func(o metav1.ListOptions) (string, error) {
		list, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		if err != nil {
			return "", fmt.Errorf("list pods: %w", err)
		}
		for i := range list.Items {
			uses = append(uses, of(&list.Items[i], claims, driver)...)
		}
		return list.Continue, nil
	})
	return uses, err
}

func of(p *corev1.Pod, claims map[string]bool, driver string) (uses []Use) {
	if p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	for _, v := range p.Spec.Volumes {
		u := Use{Pod: p.Namespace + "/" + p.Name, Node: p.Spec.NodeName, Volume: v.Name}
		switch {
		case v.CSI != nil && v.CSI.Driver == driver:
		case v.PersistentVolumeClaim != nil && claims[p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName]:
			u.Claim = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil && claims[p.Namespace+"/"+p.Name+"-"+v.Name]:
			u.Claim = p.Name + "-" + v.Name
		default:
			continue
		}
		uses = append(uses, u)
	}
	return uses
}

// pages calls f until it says that there is no more.
func pages(f func(metav1.ListOptions) (next string, err error)) error {
	o := metav1.ListOptions{Limit: page}
	for {
		next, err := f(o)
		if err != nil || next == "" {
			return err
		}
		o.Continue = next
	}
}
