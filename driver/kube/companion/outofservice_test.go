package companion_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-csi/holdfast/storage"
)

// lease gives a node a short lease of a volume of one node.
func (w *world) lease(id storage.VolumeID, node string) {
	w.t.Helper()
	w.change(id, func(r *storage.Record) {
		r.Access = storage.Single
		r.Grant(node, storage.Lease{For: 400 * time.Millisecond, Grace: 100 * time.Millisecond}, time.Now())
	})
}

func (w *world) change(id storage.VolumeID, f func(*storage.Record)) {
	w.t.Helper()
	for {
		r, err := w.store.GetRecord(w.t.Context(), id)
		must(w.t, err)
		f(&r)
		_, err = w.store.UpdateRecord(w.t.Context(), r)
		if storage.Is(err, storage.Changed) {
			continue
		}
		must(w.t, err)
		return
	}
}

func (w *world) holders(id storage.VolumeID) []string {
	w.t.Helper()
	r, err := w.store.GetRecord(w.t.Context(), id)
	must(w.t, err)
	return r.Nodes()
}

func (w *world) node(name string, taints ...corev1.Taint) {
	w.t.Helper()
	_, err := w.api.CoreV1().Nodes().Create(w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: taints}}, metav1.CreateOptions{})
	must(w.t, err)
}

func (w *world) taint(name string) {
	w.t.Helper()
	nodes := w.api.CoreV1().Nodes()
	n, err := nodes.Get(w.t.Context(), name, metav1.GetOptions{})
	must(w.t, err)
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute})
	_, err = nodes.Update(w.t.Context(), n, metav1.UpdateOptions{})
	must(w.t, err)
}

// A node loses its leases when it is given up and silent: not when it is silent alone,
// and not when it is given up and runs.
func TestOutOfService(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		silent, running, deleted := w.claim(tenant, "silent"), w.claim(tenant, "running"), w.claim(tenant, "deleted")
		id := func(c *corev1.PersistentVolumeClaim) storage.VolumeID {
			return storage.VolumeID("pvc-" + string(c.UID))
		}
		for node, c := range map[string]*corev1.PersistentVolumeClaim{"node-silent": silent, "node-running": running, "node-deleted": deleted} {
			w.node(node)
			w.lease(id(c), node)
		}
		alive := make(chan struct{})
		renewed := make(chan struct{})
		go func() { // a node that renews
			defer close(renewed)
			for {
				select {
				case <-alive:
					return
				case <-time.After(50 * time.Millisecond):
				}
				r, err := w.store.GetRecord(t.Context(), id(running))
				if err != nil || r.Renew("node-running", r.Epoch, time.Now()) != nil {
					continue
				}
				_, _ = w.store.UpdateRecord(t.Context(), r)
			}
		}()
		stopped := false
		stop := func() {
			if !stopped {
				close(alive)
				<-renewed
				stopped = true
			}
		}
		t.Cleanup(stop)

		// Silent for much longer than its lease, and not given up.
		<-time.After(2 * time.Second)
		for _, c := range []*corev1.PersistentVolumeClaim{silent, running, deleted} {
			if have := w.holders(id(c)); len(have) != 1 {
				t.Errorf("%s is held by %v, and nobody was given up", c.Name, have)
			}
		}

		w.taint("node-silent")
		w.taint("node-running")
		must(t, w.api.CoreV1().Nodes().Delete(t.Context(), "node-deleted", metav1.DeleteOptions{}))
		begun := time.Now()
		for _, c := range []*corev1.PersistentVolumeClaim{silent, deleted} {
			w.eventually(func() error {
				if have := w.holders(id(c)); len(have) > 0 {
					return fmt.Errorf("%s is held by %v", c.Name, have)
				}
				return nil
			})
		}
		t.Logf("ended %s after the word", time.Since(begun).Round(time.Millisecond))
		w.event(silent, "LeaseEnded", "node-silent", "out of service")
		w.event(deleted, "LeaseEnded", "node-deleted", "deleted")
		w.event(running, "OutOfServiceNodeRuns", "node-running")
		if have := w.holders(id(running)); !slices.Equal(have, []string{"node-running"}) {
			t.Errorf("a node that runs has lost its volume: %v", have)
		}
		stop()
		w.eventually(func() error {
			if have := w.holders(id(running)); len(have) > 0 {
				return fmt.Errorf("held by %v", have)
			}
			return nil
		})

		// Another node begins a new epoch, so the one that comes back has lost.
		before, err := w.store.GetRecord(t.Context(), id(silent))
		must(t, err)
		w.lease(id(silent), "node-next")
		after, err := w.store.GetRecord(t.Context(), id(silent))
		must(t, err)
		if after.Epoch != before.Epoch+1 {
			t.Errorf("epoch %d after %d", after.Epoch, before.Epoch)
		}
		if err := after.Renew("node-silent", before.Epoch, time.Now()); !storage.Is(err, storage.Stale) {
			t.Errorf("the node that came back renews its lease: %v, want Stale", err)
		}
	})
}
