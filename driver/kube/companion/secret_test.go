package companion_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-csi/holdfast/driver/kube/s3secret"
	"github.com/holdfast-csi/holdfast/storage"
)

func bufioReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func quantity(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

// A claim that asks gets a Secret with all the names, which is restored, follows a
// rotation, and goes with the claim.
func TestSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		plain := w.claim(tenant, "plain")
		c := w.claim(tenant, "data", annotated)
		keys := w.keys(c)
		w.eventually(func() error { return w.holds(tenant, "data-s3", keys) })
		s := w.secret(tenant, "data-s3")
		bucket := "pvc-" + string(c.UID)
		for key, want := range map[string]string{
			"AWS_ACCESS_KEY_ID": keys.Access, "AWS_SECRET_ACCESS_KEY": keys.Secret, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
			"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint,
			"BUCKET_NAME": bucket, "BUCKET_PREFIX": "", "BUCKET_HOST": "holdfast-s3.holdfast-system.svc", "BUCKET_PORT": "8333", "BUCKET_REGION": "us-east-1",
			"COSI_PROTOCOL": "S3", "COSI_S3_BUCKET_ID": bucket, "COSI_S3_ENDPOINT": endpoint, "COSI_S3_REGION": "us-east-1", "COSI_S3_ADDRESSING_STYLE": "path",
			"COSI_S3_ACCESS_KEY_ID": keys.Access, "COSI_S3_ACCESS_SECRET_KEY": keys.Secret,
			"accessKey": keys.Access, "secretKey": keys.Secret, "endpoint": endpoint, "bucketName": bucket,
		} {
			if got, ok := s.Data[key]; !ok || string(got) != want {
				t.Errorf("%s: %q (there: %v), want %q", key, got, ok, want)
			}
		}
		var info struct {
			Spec struct {
				BucketName, AuthenticationType string
				SecretS3                       struct{ Endpoint, Region, AccessKeyID, AccessSecretKey string }
				Protocols                      []string
			}
		}
		must(t, json.Unmarshal(s.Data["BucketInfo"], &info))
		if i := info.Spec; i.BucketName != bucket || i.SecretS3.AccessKeyID != keys.Access || i.SecretS3.AccessSecretKey != keys.Secret || i.SecretS3.Endpoint != endpoint || len(i.Protocols) != 1 {
			t.Error("BucketInfo is not what COSI has")
		}
		w.event(c, "S3SecretWritten", "data-s3")

		secrets := w.api.CoreV1().Secrets(tenant)
		must(t, secrets.Delete(t.Context(), s.Name, metav1.DeleteOptions{}))
		w.eventually(func() error { return w.holds(tenant, "data-s3", keys) })

		s = w.secret(tenant, "data-s3")
		s.Data["AWS_SECRET_ACCESS_KEY"] = []byte("changed")
		s.Data["more"] = []byte("x")
		s.Labels = map[string]string{"mine": "stays"} // without ours it is out of the watch
		_, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{})
		must(t, err)
		w.eventually(func() error {
			if s := w.secret(tenant, "data-s3"); s.Data["more"] != nil || s.Labels["mine"] != "stays" || s.Labels[s3secret.Annotation] != "true" {
				return fmt.Errorf("labels %v, %d keys", s.Labels, len(s.Data))
			}
			return w.holds(tenant, "data-s3", keys)
		})

		_, err = w.control.RotateKeys(t.Context(), storage.VolumeID(bucket), "", time.Hour)
		must(t, err)
		next := w.keys(c)
		if next == keys {
			t.Fatal("the keys were not rotated")
		}
		w.eventually(func() error { return w.holds(tenant, "data-s3", next) })
		w.silent(keys.Secret, next.Secret)

		if w.secret(tenant, "plain-s3") != nil || w.secret(other, "data-s3") != nil {
			t.Error("a Secret that nobody asked for")
		}
		_ = plain
		if !w.real {
			return // the fake collects no garbage
		}
		must(t, w.api.CoreV1().PersistentVolumeClaims(tenant).Delete(t.Context(), c.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
		w.unprotect(c)
		w.eventually(func() error {
			if w.secret(tenant, "data-s3") != nil {
				return fmt.Errorf("the Secret is there without its claim")
			}
			return nil
		})
	})
}

// unprotect does what the controller for it does once no pod has the claim.
func (w *world) unprotect(c *corev1.PersistentVolumeClaim) {
	w.t.Helper()
	claims := w.api.CoreV1().PersistentVolumeClaims(c.Namespace)
	c, err := claims.Get(w.t.Context(), c.Name, metav1.GetOptions{})
	if err != nil {
		return // it had no finalizer
	}
	c.Finalizers = nil
	_, err = claims.Update(w.t.Context(), c, metav1.UpdateOptions{})
	must(w.t, err)
}

// A Secret that is not ours is left as it is, whatever its labels; when it is gone, ours
// is made. One that cannot be changed is replaced.
func TestForeignSecret(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		secrets := w.api.CoreV1().Secrets(tenant)
		_, err := secrets.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "data-s3", Labels: map[string]string{s3secret.Annotation: "true"}},
			Data:       map[string][]byte{"password": []byte("theirs")},
		}, metav1.CreateOptions{})
		must(t, err)
		c := w.claim(tenant, "data", annotated)
		w.event(c, "S3SecretForeign", "data-s3", "left as it is")
		if s := w.secret(tenant, "data-s3"); string(s.Data["password"]) != "theirs" || len(s.Data) != 1 || len(s.OwnerReferences) != 0 {
			t.Errorf("it was touched: %v", s.ObjectMeta)
		}
		must(t, secrets.Delete(t.Context(), "data-s3", metav1.DeleteOptions{}))
		w.eventually(func() error { return w.holds(tenant, "data-s3", w.keys(c)) })

		s := w.secret(tenant, "data-s3")
		frozen := true
		s.Immutable = &frozen
		s.Data["bucketName"] = []byte("another")
		_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
		must(t, err)
		w.eventually(func() error {
			s := w.secret(tenant, "data-s3")
			if s == nil || s.Immutable != nil || string(s.Data["bucketName"]) != "pvc-"+string(c.UID) {
				return fmt.Errorf("it was not replaced")
			}
			return w.holds(tenant, "data-s3", w.keys(c))
		})
	})
}

// What a claim asks for in a wrong way, or where it may not, it is told.
func TestSecretRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		elsewhere := w.claim(other, "data", annotated)
		w.event(elsewhere, "S3SecretNotAllowed", "--secret-namespace="+other, "s3Secrets.namespaces")
		odd := w.claim(tenant, "odd", func(c *corev1.PersistentVolumeClaim) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, s3secret.Annotation, "yes")
		})
		w.event(odd, "S3SecretInvalid", `"yes"`, "true and false")

		c := w.claim(tenant, "data", annotated)
		w.eventually(func() error { return w.holds(tenant, "data-s3", w.keys(c)) })
		claims := w.api.CoreV1().PersistentVolumeClaims(tenant)
		c, err := claims.Get(t.Context(), "data", metav1.GetOptions{})
		must(t, err)
		delete(c.Annotations, s3secret.Annotation)
		_, err = claims.Update(t.Context(), c, metav1.UpdateOptions{})
		must(t, err)
		w.eventually(func() error {
			if w.secret(tenant, "data-s3") != nil {
				return fmt.Errorf("it is there, and nobody asks for it any more")
			}
			return nil
		})
		w.event(c, "S3SecretRemoved", "data-s3")
		for ns, name := range map[string]string{other: "data-s3", tenant: "odd-s3"} {
			if w.secret(ns, name) != nil {
				t.Errorf("Secret %s in %s", name, ns)
			}
		}
	})
}

// What a tenant could steal by an annotation: each way, and that it gives nothing.
func TestSecretTheft(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		victim := w.claim(other, "victim")
		stolen := storage.VolumeID("pvc-" + string(victim.UID))

		// A claim that names the PersistentVolume of another one, and says that it is bound.
		named := w.unbound(tenant, "named", annotated, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pvc-" + string(victim.UID) })
		named = w.boundTo(named, "pvc-"+string(victim.UID))
		// A static PersistentVolume of that volume, made for a claim.
		static := w.bind(w.unbound(tenant, "static", annotated), "static", stolen)
		// A volume of a bucket that others may have.
		must(t, w.store.CreateBucket(t.Context(), "shared"))
		shared := w.unbound(tenant, "shared", annotated)
		w.volume("pvc-"+string(shared.UID), map[string]string{"bucketName": "shared", "onDelete": "retain"})
		shared = w.bind(shared, "pvc-"+string(shared.UID), storage.VolumeID("pvc-"+string(shared.UID)))
		// Its own volume, to read; an administrator's word does not help.
		reader := w.unbound(tenant, "reader", annotated, func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
		})
		reader = w.bind(reader, "reader", w.volume("pvc-"+string(reader.UID), nil), granted)
		// A PersistentVolume of another driver with the name of a volume of ours.
		foreign := w.bind(w.unbound(tenant, "foreign", annotated), "foreign", stolen, granted, func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other.example.com" })
		// The name of a claim that is gone, and whose PersistentVolume stayed.
		former := w.unbound(tenant, "former", annotated)
		former = w.bind(former, "former", w.volume("pvc-"+string(former.UID), nil), granted, func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "another" })

		w.event(static, "S3SecretRefused", "not made for this claim", "annotation")
		w.event(shared, "S3SecretRefused", "not its own")
		w.event(reader, "S3SecretRefused", "to read")
		// The last of these in the queue: the ones before have been looked at.
		last := w.claim(tenant, "last", annotated)
		w.eventually(func() error { return w.holds(tenant, "last-s3", w.keys(last)) })
		for _, c := range []*corev1.PersistentVolumeClaim{named, static, shared, reader, foreign, former} {
			if s := w.secret(tenant, c.Name+"-s3"); s != nil {
				t.Errorf("claim %s got the keys of %s", c.Name, s.Data["BUCKET_NAME"])
			}
		}

		// The administrator's word, and its end.
		volumes := w.api.CoreV1().PersistentVolumes()
		v, err := volumes.Get(t.Context(), "static", metav1.GetOptions{})
		must(t, err)
		granted(v)
		v, err = volumes.Update(t.Context(), v, metav1.UpdateOptions{})
		must(t, err)
		w.eventually(func() error { return w.holds(tenant, "static-s3", w.keys(victim)) })
		delete(v.Annotations, s3secret.Annotation)
		_, err = volumes.Update(t.Context(), v, metav1.UpdateOptions{})
		must(t, err)
		w.eventually(func() error {
			if w.secret(tenant, "static-s3") != nil {
				return fmt.Errorf("it is still there")
			}
			return nil
		})
	})
}

func granted(v *corev1.PersistentVolume) {
	metav1.SetMetaDataAnnotation(&v.ObjectMeta, s3secret.Annotation, "true")
}

// TestRights: without the RoleBinding of a namespace there is no Secret, and the claim is
// told why; the other namespaces are served. With it, there is one.
func TestRights(t *testing.T) {
	w, server := realWorld(t)
	must(t, w.api.RbacV1().RoleBindings(tenant).Delete(t.Context(), "holdfast-s3-secrets", metav1.DeleteOptions{}))
	w.run(server.As(t, system, "holdfast-controller"))
	c := w.claim(tenant, "data", annotated)
	w.event(c, "S3SecretFailed", "RoleBinding", tenant)
	w.bindSecrets(tenant)
	w.eventually(func() error { return w.holds(tenant, "data-s3", w.keys(c)) })
	_, err := server.As(t, system, "holdfast-controller").CoreV1().Secrets(other).List(t.Context(), metav1.ListOptions{})
	if err == nil {
		t.Error("the companion may list the Secrets of a namespace that nobody has allowed")
	}
}

// Two companions: one works, and when it ends the other one does.
func TestElection(t *testing.T) {
	w, server := realWorld(t)
	client := server.As(t, system, "holdfast-controller")
	t.Run("two", func(t *testing.T) {
		first := *w
		first.t = t
		first.run(client)
		c := w.claim(tenant, "data", annotated)
		w.eventually(func() error { return w.holds(tenant, "data-s3", w.keys(c)) })
		w.run(client)
	})
	c := w.claim(tenant, "more", annotated)
	w.eventually(func() error { return w.holds(tenant, "more-s3", w.keys(c)) })
}
