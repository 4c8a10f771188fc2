package companion_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/holdfast-csi/holdfast/storage"
)

// pod makes one that has a claim on a node.
func (w *world) pod(c *corev1.PersistentVolumeClaim, name, node string) *corev1.Pod {
	w.t.Helper()
	p, err := w.api.CoreV1().Pods(c.Namespace).Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: uuid.NewUUID()},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "c", Image: "example.com/image"}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Name},
			}}},
		},
	}, metav1.CreateOptions{})
	must(w.t, err)
	return p
}

// events counts those about an object, by reason.
func (w *world) events(about metav1.Object) map[string]int {
	w.t.Helper()
	list, err := w.api.CoreV1().Events(about.GetNamespace()).List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	count := map[string]int{}
	for _, e := range list.Items {
		if e.InvolvedObject.UID == about.GetUID() {
			count[e.Reason] += int(max(e.Count, 1))
		}
	}
	return count
}

// What a node reports and what the controller finds is told to the claim, once, and to
// the pods of that node; and when it is over, that is told.
func TestHealthEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		c, untouched := w.claim(tenant, "data"), w.claim(tenant, "untouched")
		id := storage.VolumeID("pvc-" + string(c.UID))
		here, there := w.pod(c, "here", "node-1"), w.pod(c, "there", "node-2")
		stop := make(chan struct{})
		reported := make(chan struct{})
		report := func(found ...storage.Finding) func(uint64) storage.Report {
			return func(beat uint64) storage.Report {
				r := storage.Report{Node: "node-1", Beat: beat, Every: time.Second, Volumes: map[storage.VolumeID][]storage.Finding{}}
				if len(found) > 0 {
					r.Volumes[id] = found
				}
				return r
			}
		}
		next := make(chan func(uint64) storage.Report)
		go func() { // a node that reports now and then
			defer close(reported)
			what := report(storage.Finding{Status: "degraded", Reason: "Leftovers", Message: "2 files could not be committed"})
			for beat := uint64(1); ; beat++ {
				_ = w.store.PutReport(t.Context(), what(beat))
				select {
				case <-stop:
					return
				case what = <-next:
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
		t.Cleanup(func() { close(stop); <-reported })

		w.event(c, "Leftovers", "on node node-1: 2 files")
		w.event(here, "Leftovers", "on node node-1: 2 files")
		next <- report(storage.Finding{Status: "degraded", Reason: "Leftovers", Message: "3 files could not be committed"}, storage.Finding{Status: "inaccessible", Reason: "MounterSilent", Message: "it does not answer"})
		w.event(c, "MounterSilent", "node-1")
		next <- report()
		w.event(c, "Well", "node-1", "MounterSilent")
		w.event(c, "Well", "node-1", "Leftovers")
		w.event(here, "Well", "node-1", "Leftovers")

		// Somebody changes the user by hand: only the controller sees it.
		r, err := w.store.GetRecord(t.Context(), id)
		must(t, err)
		must(t, w.store.Revoke(t.Context(), r.User))
		w.event(c, "KeysChanged", "rotate-keys")
		_, err = w.control.RotateKeys(t.Context(), id, "", 0)
		if err == nil {
			w.event(c, "Well", "KeysChanged")
		}

		if n := w.events(c); n["Leftovers"] != 1 || n["MounterSilent"] != 1 || n["KeysChanged"] != 1 {
			t.Errorf("told more than once: %v", n)
		}
		if n := w.events(there); len(n) > 0 {
			t.Errorf("a pod of another node was told %v", n)
		}
		if n := w.events(untouched); len(n) > 0 {
			t.Errorf("another claim was told %v", n)
		}
	})
}
