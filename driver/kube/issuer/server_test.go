package issuer

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/kubetest"
)

// onBoth runs a test on the fake and, where its programs are, on a real API server: the fake
// must not be kinder.
func onBoth(t *testing.T, test func(t *testing.T, secrets Secrets, remove func(name string))) {
	t.Run("fake", func(t *testing.T) {
		f := newFakeSecrets()
		test(t, f, f.remove)
	})
	t.Run("real", func(t *testing.T) {
		client, err := api.Connect(kubetest.Start(t).Kubeconfig, "test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "test"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		c := Connected(client, "test")
		t.Cleanup(c.Close)
		test(t, c.Secrets(), func(name string) {
			if err := client.CoreV1().Secrets("test").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestConditions: what the issuer counts on when somebody else is faster.
func TestConditions(t *testing.T) {
	onBoth(t, func(t *testing.T, secrets Secrets, remove func(string)) {
		ctx := t.Context()
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "test", Name: "s"}}
		if _, err := secrets.Get(ctx, "s", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("what is missing: %v", err)
		}
		first, err := secrets.Create(ctx, s, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			t.Errorf("made twice: %v", err)
		}
		changed := first.DeepCopy()
		changed.Data = map[string][]byte{"a": []byte("b")}
		if _, err := secrets.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := secrets.Update(ctx, first, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("changed as it was before: %v", err)
		}
		remove("s")
		if _, err := secrets.Update(ctx, changed, metav1.UpdateOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("changed after it was deleted: %v", err)
		}
	})
}

// TestManyIssuers: several that begin at once, and go on while Secrets are deleted, end with
// one root that everything follows from.
func TestManyIssuers(t *testing.T) {
	onBoth(t, func(t *testing.T, secrets Secrets, remove func(string)) {
		keyring := &fakeKeyring{}
		for round := range 3 {
			var all sync.WaitGroup
			for range 4 {
				i, err := New(Deps{Secrets: secrets, Keyring: keyring}, Options{Namespace: "test", Prefix: "hf"})
				if err != nil {
					t.Fatal(err)
				}
				all.Go(func() {
					// The last pass of each sees what the others have made.
					for range 3 {
						if err := i.Pass(t.Context()); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			root, err := secrets.Get(t.Context(), "hf-root", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"a", "b"} {
				s, err := secrets.Get(t.Context(), "hf-"+part, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if want := fmt.Sprintf("%s of %s,", part, root.Data["key"]); !strings.HasPrefix(string(s.Data["cert"]), want) {
					t.Errorf("round %d: hf-%s holds %q, want %q", round, part, s.Data["cert"], want)
				}
			}
			remove("hf-root")
			remove("hf-b")
		}
	})
}
