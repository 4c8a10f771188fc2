package s3secret

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-csi/holdfast/storage"
)

// Annotation asks for a Secret, on a claim. On a PersistentVolume it is an
// administrator's word that whoever has the volume may have its keys.
const Annotation = "holdfast.io/s3-secret"

// asked reads the annotation.
func asked(claim *corev1.PersistentVolumeClaim) (bool, error) {
	switch value, there := claim.Annotations[Annotation]; {
	case !there, value == "false":
		return false, nil
	case value == "true":
		return true, nil
	default:
		return false, storage.Errorf(storage.Invalid, "annotation %s is %.64q: true and false are allowed", Annotation, value)
	}
}

// This is what a tenant must not get by annotating a claim: the keys of a bucket that is
// not the claim's own. What decides is nothing that a tenant can write:
//
//   - The volume was made for this claim. external-provisioner asks for it by a name that
//     ends in the claim's UID, and that name stands in the record. A claim that was bound
//     to a volume made for somebody else (a static PersistentVolume, one that was kept
//     and given on) has another UID.
//   - What is in the volume is its own: a StorageClass can name a bucket or a folder that
//     several volumes share, or that was there before.
//   - Or else an administrator has annotated the PersistentVolume, which tenants cannot
//     write.
//
// The keys open the volume for writing and for every owner, so whoever has it to read
// gets none, an administrator's word or not.

// refusal says why the claim must not have the keys; "" when it may.
func refusal(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume, r *storage.Record, own bool) string {
	if what := readOnly(claim, v, r); what != "" {
		return fmt.Sprintf("%s, and S3 keys would open it for writing", what)
	}
	if v.Annotations[Annotation] == "true" {
		return ""
	}
	const how = "an administrator can allow it by the annotation " + Annotation + `="true" on the PersistentVolume`
	if !strings.HasSuffix(r.Name, "-"+string(claim.UID)) {
		return "the volume was not made for this claim; " + how
	}
	if !own {
		return "the bucket or the folder of the volume is not its own, since its StorageClass names one that others may have too; " + how
	}
	return ""
}

func readOnly(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume, r *storage.Record) string {
	writes := func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany }
	switch {
	case r.Access == storage.ReadOnlyMode, v.Spec.CSI.ReadOnly, slices.Contains(v.Spec.MountOptions, "ro"):
		return "the volume is read-only"
	case !slices.ContainsFunc(v.Spec.AccessModes, writes), !slices.ContainsFunc(claim.Spec.AccessModes, writes):
		return "the claim has the volume to read (ReadOnlyMany)"
	}
	return ""
}
