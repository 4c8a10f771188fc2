package companion_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/kube/companion"
	"github.com/holdfast-csi/holdfast/driver/kube/kubetest"
	"github.com/holdfast-csi/holdfast/driver/kube/s3secret"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

const (
	system = "holdfast-system"
	// tenant is a namespace where Secrets are kept, other one where they are not.
	tenant, other = "team", "elsewhere"
	endpoint      = "http://holdfast-s3.holdfast-system.svc:8333"
)

// world is an API server and a store, with a companion between them.
type world struct {
	t       *testing.T
	api     kubernetes.Interface // the administrator's
	store   *memory.Store
	control *driver.Controller
	log     *output
	real    bool
}

// output of the companion.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// onBoth runs a story on the fake and on a real API server, with a companion that has
// the rights of rbac.yaml there.
func onBoth(t *testing.T, story func(t *testing.T, w *world)) {
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		client := fake.NewClientset()
		w := newWorld(t, client, false)
		w.run(w.api)
		for _, resource := range []string{"persistentvolumeclaims", "persistentvolumes", "secrets"} {
			w.watched(client, resource)
		}
		story(t, w)
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		w, server := realWorld(t)
		w.run(server.As(t, system, "holdfast-controller"))
		story(t, w)
	})
}

// watched waits until the companion watches a resource. The fake forgets what happens
// between an informer's listing and its watch, which a server does not.
func (w *world) watched(client *fake.Clientset, resource string) {
	w.t.Helper()
	w.eventually(func() error {
		for _, action := range client.Actions() {
			if action.Matches("watch", resource) {
				return nil
			}
		}
		return fmt.Errorf("nobody watches %s", resource)
	})
}

func realWorld(t *testing.T) (*world, *kubetest.Server) {
	t.Helper()
	server := kubetest.Start(t)
	admin, err := kubernetes.NewForConfig(server.Admin)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, admin, true)
	for _, ns := range []string{system, tenant, other} {
		_, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		must(t, err)
	}
	w.rights()
	return w, server
}

func newWorld(t *testing.T, api kubernetes.Interface, real bool) *world {
	t.Helper()
	s := memory.New()
	w := &world{t: t, api: api, store: s, log: &output{}, real: real}
	w.control = driver.NewController(driver.ControllerDeps{Records: s, Buckets: s, Access: s})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the companion:\n%s", w.log)
		}
	})
	return w
}

// rights applies rbac.yaml, and the RoleBinding of a namespace for Secrets.
func (w *world) rights() {
	w.t.Helper()
	f, err := os.Open("rbac.yaml")
	must(w.t, err)
	defer func() { _ = f.Close() }()
	rbac := w.api.RbacV1()
	ctx := w.t.Context()
	for d := yaml.NewYAMLReader(bufioReader(f)); ; {
		b, err := d.Read()
		if err != nil {
			break
		}
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, nil)
		must(w.t, err)
		switch o := obj.(type) {
		case *rbacv1.ClusterRole:
			_, err = rbac.ClusterRoles().Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.ClusterRoleBinding:
			_, err = rbac.ClusterRoleBindings().Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.Role:
			_, err = rbac.Roles(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		case *rbacv1.RoleBinding:
			_, err = rbac.RoleBindings(o.Namespace).Create(ctx, o, metav1.CreateOptions{})
		default:
			err = fmt.Errorf("%T in rbac.yaml", obj)
		}
		must(w.t, err)
	}
	w.bindSecrets(tenant)
}

func (w *world) bindSecrets(namespace string) {
	w.t.Helper()
	_, err := w.api.RbacV1().RoleBindings(namespace).Create(w.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "holdfast-s3-secrets"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "holdfast-s3-secrets"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "holdfast-controller", Namespace: system}},
	}, metav1.CreateOptions{})
	must(w.t, err)
}

func (w *world) options() companion.Options {
	return companion.Options{
		Namespace: system, Driver: driver.Name, HealthEvery: 100 * time.Millisecond, LeasesEvery: 100 * time.Millisecond, PodsEvery: 100 * time.Millisecond,
		Secrets: s3secret.Options{
			Namespaces: []string{tenant}, Own: driver.OwnContent, Refresh: 100 * time.Millisecond,
			Endpoint: s3secret.Endpoint{URL: endpoint, Region: "us-east-1"},
		},
	}
}

// run runs a companion until the test ends.
func (w *world) run(client kubernetes.Interface) {
	w.t.Helper()
	c, err := companion.New(companion.Deps{Client: client, Records: w.store, Reports: w.store, Health: w.health, Log: slog.New(slog.NewTextHandler(w.log, nil))}, w.options())
	must(w.t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if !storage.IsContext(err) {
				w.t.Errorf("the companion: %v", err)
			}
		case <-time.After(30 * time.Second):
			w.t.Error("the companion does not end")
		}
	})
}

// health is what the controller finds, as cmd asks for it over CSI.
func (w *world) health(ctx context.Context) (map[storage.VolumeID][]storage.Finding, error) {
	resp, err := w.control.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{})
	found := map[storage.VolumeID][]storage.Finding{}
	for _, h := range resp.GetEntries() {
		found[storage.VolumeID(h.GetVolumeId())] = driver.Findings(h.GetHealthStatuses())
	}
	return found, err
}

// claim makes a claim, the volume that the provisioner makes for it, and their binding,
// as the controllers of Kubernetes do it.
func (w *world) claim(namespace, name string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	w.t.Helper()
	c := w.unbound(namespace, name, change...)
	id := w.volume("pvc-"+string(c.UID), nil)
	return w.bind(c, "pvc-"+string(c.UID), id)
}

func (w *world) unbound(namespace, name string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	w.t.Helper()
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uuid.NewUUID()}, // the real one gives it another
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
			Resources:   corev1.VolumeResourceRequirements{Requests: quantity("1Gi")},
		},
	}
	for _, f := range change {
		f(c)
	}
	c, err := w.api.CoreV1().PersistentVolumeClaims(namespace).Create(w.t.Context(), c, metav1.CreateOptions{})
	must(w.t, err)
	return c
}

func annotated(c *corev1.PersistentVolumeClaim) {
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, s3secret.Annotation, "true")
}

// volume makes one, as the provisioner asks for it.
func (w *world) volume(name string, parameters map[string]string) storage.VolumeID {
	w.t.Helper()
	resp, err := w.control.CreateVolume(w.t.Context(), &csi.CreateVolumeRequest{
		Name: name, Parameters: parameters,
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		}},
	})
	must(w.t, err)
	return storage.VolumeID(resp.GetVolume().GetVolumeId())
}

// bind makes a PersistentVolume of a volume, for a claim, and binds it.
func (w *world) bind(c *corev1.PersistentVolumeClaim, pv string, id storage.VolumeID, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolumeClaim {
	w.t.Helper()
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: pv},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: c.Spec.AccessModes, Capacity: quantity("1Gi"),
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driver.Name, VolumeHandle: string(id)},
			},
		},
	}
	for _, f := range change {
		f(v)
	}
	_, err := w.api.CoreV1().PersistentVolumes().Create(w.t.Context(), v, metav1.CreateOptions{})
	must(w.t, err)
	return w.boundTo(c, pv)
}

// boundTo has the claim say that it is bound to a PersistentVolume.
func (w *world) boundTo(c *corev1.PersistentVolumeClaim, pv string) *corev1.PersistentVolumeClaim {
	w.t.Helper()
	claims := w.api.CoreV1().PersistentVolumeClaims(c.Namespace)
	c, err := claims.Get(w.t.Context(), c.Name, metav1.GetOptions{})
	must(w.t, err)
	c.Spec.VolumeName = pv
	c, err = claims.Update(w.t.Context(), c, metav1.UpdateOptions{})
	must(w.t, err)
	c.Status.Phase = corev1.ClaimBound
	c, err = claims.UpdateStatus(w.t.Context(), c, metav1.UpdateOptions{})
	must(w.t, err)
	return c
}

// secret returns a Secret, nil when there is none.
func (w *world) secret(namespace, name string) *corev1.Secret {
	w.t.Helper()
	s, err := w.api.CoreV1().Secrets(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	must(w.t, err)
	return s
}

// keys of a volume.
func (w *world) keys(c *corev1.PersistentVolumeClaim) storage.Keys {
	w.t.Helper()
	r, err := w.store.GetRecord(w.t.Context(), storage.VolumeID("pvc-"+string(c.UID)))
	must(w.t, err)
	return r.Keys
}

// holds says what is not as it should be with a Secret, nil when it has the keys.
func (w *world) holds(namespace, name string, k storage.Keys) error {
	s := w.secret(namespace, name)
	switch {
	case s == nil:
		return fmt.Errorf("there is no Secret %s", name)
	case string(s.Data["AWS_ACCESS_KEY_ID"]) != k.Access, string(s.Data["AWS_SECRET_ACCESS_KEY"]) != k.Secret:
		return fmt.Errorf("Secret %s has key %s, want %s", name, s.Data["AWS_ACCESS_KEY_ID"], k.Access)
	}
	return nil
}

// event waits for an event about an object with a reason, and all of the words.
func (w *world) event(about metav1.Object, reason string, words ...string) {
	w.t.Helper()
	w.eventually(func() error {
		list, err := w.api.CoreV1().Events(about.GetNamespace()).List(w.t.Context(), metav1.ListOptions{})
		must(w.t, err)
		var seen []string
		for _, e := range list.Items {
			if e.InvolvedObject.UID != about.GetUID() {
				continue
			}
			seen = append(seen, e.Reason+": "+e.Message)
			if e.Reason == reason && containsAll(e.Message, words) {
				return nil
			}
		}
		return fmt.Errorf("no event %s with %q about %s; there are %q", reason, words, about.GetName(), seen)
	})
}

func containsAll(s string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(s, word) {
			return false
		}
	}
	return true
}

// silent says that there is nothing with the secret in the companion's log or in events.
func (w *world) silent(secrets ...string) {
	w.t.Helper()
	all := w.log.String()
	list, err := w.api.CoreV1().Events("").List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	for _, e := range list.Items {
		all += e.String()
	}
	for _, secret := range secrets {
		if strings.Contains(all, secret) || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte(secret))) {
			w.t.Error("a secret is in the log or an event")
		}
	}
}

func (w *world) eventually(check func() error) {
	w.t.Helper()
	deadline := time.After(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			w.t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
