package claims

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-csi/holdfast/storage"
)

// byHandle is the index of PersistentVolumes by the volume that they are.
const byHandle = "holdfast/volumeHandle"

// Claims answers from what the informers have.
type Claims struct {
	driver  string
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	index   cache.Indexer

	claimInformer, volumeInformer cache.SharedIndexInformer
}

// New takes the two informers of a factory, which the caller starts. driver is the
// CSI driver's name: PersistentVolumes of others are nothing to us.
func New(factory informers.SharedInformerFactory, driver string) (*Claims, error) {
	core := factory.Core().V1()
	c := &Claims{
		driver: driver,
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		claimInformer: core.PersistentVolumeClaims().Informer(), volumeInformer: core.PersistentVolumes().Informer(),
	}
	c.index = c.volumeInformer.GetIndexer()
	err := c.volumeInformer.AddIndexers(cache.Indexers{byHandle: func(obj any) ([]string, error) {
		if v, ok := obj.(*corev1.PersistentVolume); ok && c.ours(v) {
			return []string{v.Spec.CSI.VolumeHandle}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return nil, fmt.Errorf("index of PersistentVolumes: %w", err)
	}
	for _, i := range []cache.SharedIndexInformer{c.claimInformer, c.volumeInformer} {
		if err := i.SetTransform(slim); err != nil {
			return nil, fmt.Errorf("informer: %w", err)
		}
	}
	return c, nil
}

// slim drops what nobody here reads: it is most of an object. What it was given may be
// somebody else's too, so it changes a copy of the outermost structure.
func slim(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		less := *o
		less.ManagedFields = nil
		return &less, nil
	case *corev1.PersistentVolume:
		less := *o
		less.ManagedFields = nil
		return &less, nil
	}
	return obj, nil
}

func (c *Claims) ours(v *corev1.PersistentVolume) bool {
	return v.Spec.CSI != nil && v.Spec.CSI.Driver == c.driver && v.Spec.CSI.VolumeHandle != ""
}

// OnChange has changed called with each claim that changed, or whose PersistentVolume
// did; also when it is gone. To be called before the informers start.
func (c *Claims) OnChange(changed func(cache.ObjectName)) error {
	claim := func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			changed(name)
		}
	}
	volume := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if v, ok := obj.(*corev1.PersistentVolume); ok && v.Spec.ClaimRef != nil && c.ours(v) {
			changed(cache.NewObjectName(v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name))
		}
	}
	for informer, handle := range map[cache.SharedIndexInformer]func(any){c.claimInformer: claim, c.volumeInformer: volume} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: handle, UpdateFunc: func(_, now any) { handle(now) }, DeleteFunc: handle,
		})
		if err != nil {
			return fmt.Errorf("informer: %w", err)
		}
	}
	return nil
}

// Synced reports whether both informers have all there is.
func (c *Claims) Synced() bool { return c.claimInformer.HasSynced() && c.volumeInformer.HasSynced() }

// Claim returns a claim, nil when there is none.
func (c *Claims) Claim(name cache.ObjectName) (*corev1.PersistentVolumeClaim, error) {
	claim, err := c.claims.PersistentVolumeClaims(name.Namespace).Get(name.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return claim, err
}

// For returns the PersistentVolume that a claim has, nil while it has none, or one of
// another driver. The claim's own word (spec.volumeName) is a wish of whoever wrote it:
// the PersistentVolume has to name this very claim.
func (c *Claims) For(claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	if claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound {
		return nil, nil
	}
	v, err := c.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil || !c.ours(v) || !has(claim, v) {
		return nil, err
	}
	return v, nil
}

// has reports whether the PersistentVolume says that the claim has it. A reference
// without a UID is an administrator's, who has kept the volume for a name; the binding
// fills it in.
func has(claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) bool {
	ref := v.Spec.ClaimRef
	return ref != nil && ref.UID != "" && ref.UID == claim.UID && ref.Namespace == claim.Namespace && ref.Name == claim.Name
}

// Of returns the claims that have a volume: several, where an administrator has made
// more than one PersistentVolume of it.
func (c *Claims) Of(id storage.VolumeID) ([]*corev1.PersistentVolumeClaim, error) {
	found, err := c.index.ByIndex(byHandle, string(id))
	if err != nil {
		return nil, fmt.Errorf("PersistentVolumes of volume %s: %w", id, err)
	}
	var list []*corev1.PersistentVolumeClaim
	for _, obj := range found {
		v, ok := obj.(*corev1.PersistentVolume)
		if !ok || v.Spec.ClaimRef == nil {
			continue
		}
		claim, err := c.Claim(cache.NewObjectName(v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name))
		if err != nil {
			return nil, err
		}
		if claim != nil && has(claim, v) {
			list = append(list, claim)
		}
	}
	return list, nil
}
