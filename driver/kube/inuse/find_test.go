package inuse

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func volume(name, driver, claim string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver}
	if claim != "" {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "team", Name: claim}
	}
	return v
}

func pod(namespace, name string, edit func(*corev1.Pod), sources ...corev1.VolumeSource) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.NodeName, p.Status.Phase = "node1", corev1.PodRunning
	for i, s := range sources {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: s})
	}
	if edit != nil {
		edit(p)
	}
	return p
}

func claim(name string) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

func inline(driver string) corev1.VolumeSource {
	return corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}
}

// TestFind: exactly those pods in which something of ours can be mounted.
func TestFind(t *testing.T) {
	client := fake.NewClientset(
		volume("a", "ours", "data"), volume("b", "theirs", "other"), volume("c", "ours", ""), volume("d", "ours", "p-v0"),
		pod("team", "uses", nil, claim("other"), claim("data")),
		pod("elsewhere", "same-name", nil, claim("data")),
		pod("team", "over", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, claim("data")),
		pod("team", "waits", func(p *corev1.Pod) { p.Spec.NodeName = "" }, claim("data")),
		pod("team", "p", nil, corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}),
		pod("team", "inline", nil, inline("theirs"), inline("ours")),
	)
	uses, err := Find(t.Context(), client, "ours")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range uses {
		got = append(got, u.String())
	}
	slices.Sort(got)
	want := []string{
		"pod team/inline on node node1 has inline volume v1",
		"pod team/p on node node1 has claim p-v0",
		"pod team/uses on node node1 has claim data",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestDeleting: volumes that only the driver can take out of the way, and no others.
func TestDeleting(t *testing.T) {
	phase := func(v *corev1.PersistentVolume, p corev1.PersistentVolumePhase, r corev1.PersistentVolumeReclaimPolicy) *corev1.PersistentVolume {
		v.Status.Phase, v.Spec.PersistentVolumeReclaimPolicy = p, r
		return v
	}
	const del, keep = corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain
	client := fake.NewClientset(
		phase(volume("bound", "ours", "x"), corev1.VolumeBound, del),
		phase(volume("released", "ours", "x"), corev1.VolumeReleased, del),
		phase(volume("kept", "ours", "x"), corev1.VolumeReleased, keep),
		phase(volume("another's", "theirs", "x"), corev1.VolumeReleased, del),
	)
	if got, err := Deleting(t.Context(), client, "ours"); err != nil || !slices.Equal(got, []string{"released"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestFindFails: who cannot see does not say that nothing is there.
func TestFindFails(t *testing.T) {
	for _, resource := range []string{"persistentvolumes", "pods"} {
		client := fake.NewClientset()
		client.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("forbidden")
		})
		if _, err := Find(t.Context(), client, "ours"); err == nil {
			t.Errorf("%s that cannot be listed are taken for none", resource)
		}
		if _, err := Deleting(t.Context(), client, "ours"); (err == nil) != (resource == "pods") {
			t.Errorf("without %s: %v", resource, err)
		}
	}
}
