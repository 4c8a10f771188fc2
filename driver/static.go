package driver

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the node's side of PersistentVolumes that an administrator has written for
// a bucket that is there: a volumeHandle that no volume has, with the attribute
// bucketName. NodeStageVolume is the first that is called for one, and a node has no
// administrator's keys: it writes the volume's record, as for an inline volume, and waits
// until a controller has let it in (staticmake.go), or has written why not.
//
// Tenants do not come here: PersistentVolumes are the administrator's, and what a pod's
// author writes (inline.go) is refused where it names a bucket. The bucket is adopted from
// the first record on, so nothing of Holdfast's ever deletes it.

const (
	bucketAttribute   = "bucketName"
	prefixAttribute   = "prefix"
	onDeleteAttribute = "onDelete"
	// unbounded is the size of a volume whose PersistentVolume gives none: it is a limit
	// and reserves nothing, and spec.capacity is not told to a driver.
	unbounded = 1 << 60
	// provisionerAttribute is external-provisioner's, in a PersistentVolume that was copied.
	provisionerAttribute = "storage.kubernetes.io/csiProvisionerIdentity"
)

// staticParameters are the parameters that such a PersistentVolume may have.
var staticParameters = slices.Concat([]string{bucketAttribute, prefixAttribute, onDeleteAttribute}, inlineParameters)

// static returns the record of a volume that is to be staged: as it is there, or, where a
// PersistentVolume brings in a bucket, once a controller has let it in.
func (n *Node) static(ctx context.Context, id storage.VolumeID, req *csi.NodeStageVolumeRequest) (storage.Record, error) {
	given := req.GetVolumeContext()
	r, err := n.records.GetRecord(ctx, id)
	missing := storage.Is(err, storage.NotFound)
	switch {
	case err != nil && !missing:
		return r, err
	case missing && given[bucketAttribute] == "":
		return r, storage.Errorf(storage.NotFound, "%w: volumeHandle has to be the id of a volume that is there, or the attribute %s has to name the bucket that it is to be", err, bucketAttribute)
	case !missing && (r.Static == nil || given[bucketAttribute] == ""):
		return r, nil
	}
	want, err := staticWanted(id, given, req.GetVolumeCapability().GetAccessMode().GetMode())
	if err != nil {
		return r, err
	}
	if !missing && r.Phase == storage.Ready {
		return r, sameStatic(&r, &want)
	}
	return n.staticReady(ctx, want)
}

// staticWanted is the record of the volume that a PersistentVolume asks for.
func staticWanted(id storage.VolumeID, given map[string]string, m mode) (want storage.Record, err error) {
	params, bytes := map[string]string{onDeleteAttribute: string(storage.Retain)}, int64(unbounded)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch {
		case strings.HasPrefix(name, ignoredPrefix), name == provisionerAttribute:
		case name == sizeAttribute:
			n, err := attributeSize(value)
			if err != nil {
				return want, err
			}
			bytes = n
		case name == onDeleteAttribute && value != string(storage.Retain):
			return want, storage.Errorf(storage.Invalid, "attribute %s=%q: %s is allowed: a bucket that a PersistentVolume brings in was there before, and is never deleted", name, value, storage.Retain)
		case slices.Contains(staticParameters, name):
			params[name] = value
		default:
			return want, storage.Errorf(storage.Invalid, "attribute %.64q is not for a PersistentVolume that brings in a bucket: %s and %s are allowed", name, sizeAttribute, strings.Join(staticParameters, ", "))
		}
	}
	s, err := parseParams(params)
	if err != nil {
		return want, err
	}
	if !s.bucket.fixed() || !s.prefix.fixed() {
		return want, storage.Errorf(storage.Invalid, "attributes %s=%q, %s=%q: ${…} stands for a claim's names, and a PersistentVolume has none: write the names out", bucketAttribute, string(s.bucket), prefixAttribute, string(s.prefix))
	}
	access := modeAccess[m]
	return storage.Record{
		ID: id, Name: string(id), Bucket: storage.BucketName(s.bucket), Prefix: storage.Path(s.prefix), Adopted: true, OnDelete: storage.Retain,
		Capacity: bytes, Access: access, Parameters: s.kept, Phase: storage.Creating, Static: &storage.Static{},
	}, s.serves(access, m)
}

// sameStatic says whether the volume that is there is the one that is asked for.
func sameStatic(r, want *storage.Record) error {
	if maps.Equal(r.Parameters, want.Parameters) {
		return nil
	}
	return storage.Errorf(storage.Exists, "volume %s is there with other attributes: %s; give those, or another volumeHandle", r.ID, difference(r.Parameters, want.Parameters))
}

// staticReady writes the volume's record, unless that is there, and waits for a controller.
func (n *Node) staticReady(ctx context.Context, want storage.Record) (storage.Record, error) {
	bounded, cancel := context.WithTimeout(ctx, n.o.InlineWait)
	defer cancel()
	for {
		r, err := n.records.GetRecord(bounded, want.ID)
		if storage.Is(err, storage.NotFound) {
			want.Created = n.o.Now().UTC()
			r, err = n.records.CreateRecord(bounded, want)
		}
		switch {
		case storage.Is(err, storage.Exists): // written meanwhile, by another node
		case err != nil && bounded.Err() == nil:
			return r, err
		case err == nil && r.Static == nil: // a claim's volume of that name
			return r, nil
		case err == nil && r.Phase == storage.Ready:
			return r, sameStatic(&r, &want)
		case err == nil && r.Phase != storage.Creating && r.Static.Refusal == nil:
			return r, checkReady(&r)
		case err == nil && r.Static.Refusal != nil && sameStatic(&r, &want) == nil && r.Capacity == want.Capacity:
			return r, r.Static.Refusal.Err()
		}
		select {
		case <-time.After(inlineLook):
		case <-bounded.Done():
			if ctx.Err() != nil {
				return r, ctx.Err()
			}
			return r, storage.Errorf(storage.Unavailable, "volume %s: no controller has looked at bucket %s within %s: does one run? It is tried again", want.ID, want.Bucket, n.o.InlineWait)
		}
	}
}

// checkHandle says whether a PersistentVolume's handle can be a volume's id.
func checkHandle(id string, attributes map[string]string) (storage.VolumeID, error) {
	known, err := checkVolumeID(id)
	if storage.Is(err, storage.NotFound) && attributes[bucketAttribute] != "" {
		return "", storage.Errorf(storage.Invalid, "volumeHandle %s: 3 to 63 lower-case letters, digits, dots and hyphens are allowed, as for a bucket", strconv.Quote(id[:min(len(id), 64)]))
	}
	return known, err
}
