package companion_test

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/holdfast-csi/holdfast/storage"
)

// inlinePod makes a pod that has one inline volume, and the record that its node writes.
func (w *world) inlinePod(name string, id storage.VolumeID) *corev1.Pod {
	w.t.Helper()
	pod, err := w.api.CoreV1().Pods(tenant).Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name, UID: uuid.NewUUID()}, // the real one gives it another
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}, AutomountServiceAccountToken: new(bool)},
	}, metav1.CreateOptions{})
	must(w.t, err)
	_, err = w.store.CreateRecord(w.t.Context(), storage.Record{
		ID: id, Name: "csi-" + string(id), Bucket: storage.BucketName(id), Capacity: 1 << 30, Access: storage.Single, OnDelete: storage.DeleteData,
		Phase: storage.Ready, Created: time.Now(),
		Inline: &storage.Inline{Node: "node-1", Pod: storage.Pod{UID: string(pod.UID), Namespace: tenant, Name: name}},
	})
	must(w.t, err)
	return pod
}

func (w *world) goneAt(id storage.VolumeID) time.Time {
	w.t.Helper()
	r, err := w.store.GetRecord(w.t.Context(), id)
	must(w.t, err)
	return r.Inline.PodGone
}

// A pod is gone when the API server has none with its UID: not while it runs, and also
// when another one has its name.
func TestPodGone(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if w.real { // the pods' service account, which no controller makes here
			_, err := w.api.CoreV1().ServiceAccounts(tenant).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
			must(t, err)
		}
		stays, goes := w.inlinePod("stays", "csi-stays"), w.inlinePod("goes", "csi-goes")
		now := int64(0)
		must(t, w.api.CoreV1().Pods(tenant).Delete(t.Context(), goes.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		again := w.inlinePod("goes", "csi-again")
		if again.UID == goes.UID {
			t.Fatal("the pod of the same name has the same UID")
		}
		w.eventually(func() error {
			if w.goneAt("csi-goes").IsZero() {
				return errors.New("the pod is not noted as gone")
			}
			return nil
		})
		<-time.After(time.Second) // several looks
		for _, id := range []storage.VolumeID{"csi-stays", "csi-again"} {
			if at := w.goneAt(id); !at.IsZero() {
				t.Errorf("%s: a pod that is there is noted as gone at %v", id, at)
			}
		}
		must(t, w.api.CoreV1().Pods(tenant).Delete(t.Context(), stays.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
		w.eventually(func() error {
			if w.goneAt("csi-stays").IsZero() {
				return errors.New("the second pod is not noted as gone")
			}
			return nil
		})
	})
}
