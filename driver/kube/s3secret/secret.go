package s3secret

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// suffix behind the claim's name is the Secret's.
	suffix = "-s3"
	// label marks our Secrets, for the watch. Nothing is decided by it.
	label       = Annotation
	labelValue  = "true"
	managedBy   = "app.kubernetes.io/managed-by"
	manager     = "holdfast"
	volumeLabel = "holdfast.io/volume" // an annotation: ids can be longer than labels
)

// onlyOurs narrows a watch.
func onlyOurs(o *metav1.ListOptions) { o.LabelSelector = label + "=" + labelValue }

// desired is the Secret of a claim.
func desired(claim *corev1.PersistentVolumeClaim, r *storage.Record, e Endpoint) (*corev1.Secret, error) {
	data, err := content(r, e)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: claim.Namespace, Name: claim.Name + suffix,
			Labels:          map[string]string{label: labelValue, managedBy: manager},
			Annotations:     map[string]string{volumeLabel: string(r.ID)},
			OwnerReferences: []metav1.OwnerReference{owner(claim)},
		},
		Type: corev1.SecretTypeOpaque,
		Data: data,
	}, nil
}

// owner is what the garbage collector goes by. It does not block the claim's deletion:
// that would need a right on claims.
func owner(claim *corev1.PersistentVolumeClaim) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: claim.Name, UID: claim.UID}
}

// ours reports whether a Secret has the claim as its owner. Its labels say nothing:
// anybody may have copied them.
func ours(s *corev1.Secret, claim *corev1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == claim.UID })
}

// former reports whether a Secret belongs to an earlier claim of that name, and will
// be collected.
func former(s *corev1.Secret, claim *corev1.PersistentVolumeClaim) bool {
	return len(s.OwnerReferences) == 1 && s.Labels[label] == labelValue && s.OwnerReferences[0].Kind == "PersistentVolumeClaim" && s.OwnerReferences[0].Name == claim.Name
}

// fitted returns have as it should be, and whether it differs. What others have added
// to its metadata stays.
func fitted(have, want *corev1.Secret) (*corev1.Secret, bool) {
	s := have.DeepCopy()
	for key, value := range want.Labels {
		metav1.SetMetaDataLabel(&s.ObjectMeta, key, value)
	}
	for key, value := range want.Annotations {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, key, value)
	}
	s.Data, s.StringData = maps.Clone(want.Data), nil
	return s, !equality.Semantic.DeepEqual(have, s)
}

// cached is what the watch has of the claim's Secret, or nil.
func (k *Keeper) cached(claim *corev1.PersistentVolumeClaim) *corev1.Secret {
	informer := k.secrets[claim.Namespace]
	if informer == nil || !informer.HasSynced() {
		return nil
	}
	obj, _, err := informer.GetIndexer().GetByKey(cache.NewObjectName(claim.Namespace, claim.Name+suffix).String())
	s, ok := obj.(*corev1.Secret)
	if err != nil || !ok {
		return nil
	}
	return s
}

// write makes the Secret, or makes it what it should be.
func (k *Keeper) write(ctx context.Context, claim *corev1.PersistentVolumeClaim, r *storage.Record) error {
	want, err := desired(claim, r, k.o.Endpoint)
	if err != nil {
		return err
	}
	if have := k.cached(claim); have != nil && ours(have, claim) {
		if _, differs := fitted(have, want); !differs {
			return nil
		}
	}
	secrets := k.d.Client.CoreV1().Secrets(claim.Namespace)
	have, err := secrets.Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if _, err := secrets.Create(ctx, want, metav1.CreateOptions{}); err != nil {
			return k.failed("make", want, r, err)
		}
		k.written(ctx, claim, r, "made")
		return nil
	case err != nil:
		return k.failed("read", want, r, err)
	case !ours(have, claim):
		if former(have, claim) || have.DeletionTimestamp != nil {
			return storage.Errorf(storage.Busy, "it is still there from an earlier claim of this name")
		}
		return troublef(reasonForeign, "there is a Secret %s in namespace %s that is not ours: it is left as it is. Remove or rename it, and the Secret with the S3 keys of this claim is made", want.Name, claim.Namespace)
	}
	now, differs := fitted(have, want)
	if !differs {
		return nil
	}
	if have.Immutable != nil && *have.Immutable || have.Type != want.Type {
		// Such a one can be replaced only.
		if err := secrets.Delete(ctx, have.Name, exactly(have)); err != nil && !apierrors.IsNotFound(err) {
			return k.failed("replace", want, r, err)
		}
		return storage.Errorf(storage.Busy, "it is being replaced")
	}
	if _, err := secrets.Update(ctx, now, metav1.UpdateOptions{}); err != nil {
		return k.failed("write", want, r, err)
	}
	k.written(ctx, claim, r, "brought up to date")
	return nil
}

func (k *Keeper) written(ctx context.Context, claim *corev1.PersistentVolumeClaim, r *storage.Record, how string) {
	k.d.Log.InfoContext(ctx, "the Secret of a claim was written", slog.String("namespace", claim.Namespace), slog.String("claim", claim.Name), slog.String("volume", string(r.ID)))
	k.d.Tell.Note(claim, reasonWritten, fmt.Sprintf("Secret %s%s with the address and the S3 keys of this volume was %s", claim.Name, suffix, how))
}

// remove takes the Secret of a claim away that asks for none any more, or may have it
// no more.
func (k *Keeper) remove(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	have := k.cached(claim)
	if have == nil || !ours(have, claim) {
		return nil
	}
	err := k.d.Client.CoreV1().Secrets(claim.Namespace).Delete(ctx, have.Name, exactly(have))
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("remove it: %w", err)
	}
	k.d.Tell.Note(claim, reasonRemoved, fmt.Sprintf("Secret %s was removed: the claim does not ask for it any more, or may not have it. Keys that somebody has copied work until a rotation", have.Name))
	return nil
}

// exactly makes a deletion one of the very object that was looked at.
func exactly(s *corev1.Secret) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion}}
}

// failed says what the API server refused. Its words go to an event and the log, and a
// webhook could have put the object into them.
func (k *Keeper) failed(what string, s *corev1.Secret, r *storage.Record, err error) error {
	if apierrors.IsForbidden(err) {
		err = storage.Errorf(storage.Denied, "%w (is there a RoleBinding in namespace %s that lets holdfast companion keep Secrets?)", without(err, r), s.Namespace)
	} else {
		err = without(err, r)
	}
	return fmt.Errorf("%s it: %w", what, err)
}

// without returns an error in whose text there is no secret of the volume.
func without(err error, r *storage.Record) error {
	text := err.Error()
	for _, form := range []string{r.Keys.Secret, base64.StdEncoding.EncodeToString([]byte(r.Keys.Secret))} {
		if form != "" && strings.Contains(text, form) {
			return fmt.Errorf("the API server refused it (%s)", apierrors.ReasonForError(err))
		}
	}
	return err
}
