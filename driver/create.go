package driver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes volumes. The record is written first, so that whatever a crash
// leaves behind can be found; each following step may be repeated.
//
// The one step that cannot be told from another's work is the making of the
// bucket: after a crash, is the bucket that is there ours? Its name was free when
// the record was written, so it is, unless somebody made it in between; a bucket
// with content, or one that another record names, is never taken for ours, since a
// later deletion would destroy it. The risk accepted: an empty bucket that somebody
// else made in the moments between. Marking the bucket was the design that lost: S3
// cannot make a bucket and mark it in one step. Once the bucket is settled the
// record carries the user's name.

// CreateVolume implements csi.ControllerServer.
func (c *Controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	want, s, err := wanted(req)
	if err != nil {
		return nil, err
	}
	var made storage.Record
	err = c.pending.do(ctx, want.ID, "CreateVolume", func() error {
		made, err = c.create(ctx, want, s, req.GetCapacityRange())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: toCSI(made)}, nil
}

// wanted is the record of the volume that req asks for.
func wanted(req *csi.CreateVolumeRequest) (want storage.Record, s settings, err error) {
	if err := checkVolumeName(req.GetName()); err != nil {
		return want, s, err
	}
	access, err := accessOf(req.GetVolumeCapabilities())
	if err != nil {
		return want, s, err
	}
	size, err := sizeOf(req.GetCapacityRange())
	if err != nil {
		return want, s, err
	}
	if s, err = parseParams(req.GetParameters()); err != nil {
		return want, s, err
	}
	for _, c := range req.GetVolumeCapabilities() {
		if err := s.serves(access, c.GetAccessMode().GetMode()); err != nil {
			return want, s, err
		}
	}
	if len(req.GetMutableParameters()) > 0 {
		return want, s, storage.Errorf(storage.Invalid, "mutable parameters (VolumeAttributesClass) are not supported")
	}
	if req.GetVolumeContentSource() != nil {
		return want, s, storage.Errorf(storage.Invalid, "a content source (snapshot or clone) is not supported")
	}
	id := VolumeID(req.GetName())
	want = storage.Record{
		ID: id, Name: req.GetName(), Bucket: bucketOf(id), Capacity: size, Access: access,
		Parameters: s.kept, Placement: s.placement, Phase: storage.Creating,
	}
	return want, s, allot(&want, s, req.GetParameters())
}

// create runs the steps that are still to be done.
func (c *Controller) create(ctx context.Context, want storage.Record, s settings, asked *csi.CapacityRange) (storage.Record, error) {
	r, err := c.records.GetRecord(ctx, want.ID)
	if storage.Is(err, storage.NotFound) {
		r, err = c.begin(ctx, want, s)
	}
	if err != nil {
		return storage.Record{}, err
	}
	if err := compatible(r, want, s, asked); err != nil {
		return storage.Record{}, err
	}
	if r.Phase == storage.Ready {
		return c.mend(ctx, r)
	}
	return c.complete(ctx, r, s)
}

// complete makes what belongs to a record: what is there already of it stays.
func (c *Controller) complete(ctx context.Context, r storage.Record, s settings) (storage.Record, error) {
	var err error
	switch {
	case r.Phase == storage.Archived:
		r.Phase = storage.Creating
		r, err = c.records.UpdateRecord(ctx, r)
	case r.User == "":
		r, err = c.settleBucket(ctx, r, s)
	}
	if err == nil {
		err = c.place(ctx, r)
	}
	if err != nil {
		return storage.Record{}, err
	}
	if c.prepare != nil {
		if err := c.prepare.Prepare(ctx, r.Bucket, r.Prefix); err != nil {
			return storage.Record{}, err
		}
	}
	if r.Keys, err = c.access.Grant(ctx, r.User, r.Bucket, r.Prefix); err != nil {
		return storage.Record{}, err
	}
	r.Phase = storage.Ready
	r, err = c.records.UpdateRecord(ctx, r)
	if err != nil {
		return storage.Record{}, err
	}
	c.log.InfoContext(ctx, "volume created", slog.String("volume", string(r.ID)), slog.String("bucket", string(r.Bucket)),
		slog.String("path", string(r.Prefix)), slog.Bool("adopted", r.Adopted))
	return r, nil
}

// begin writes the first record: with the bucket that the parameters name, or with
// one whose name is free.
func (c *Controller) begin(ctx context.Context, want storage.Record, s settings) (storage.Record, error) {
	if _, err := c.judge(ctx, want.Placement); err != nil {
		return storage.Record{}, fmt.Errorf("place volume %s: %w", want.ID, err)
	}
	if s.bucket != "" {
		if err := c.admit(ctx, &want, s); err != nil {
			return storage.Record{}, err
		}
		return c.firstRecord(ctx, want)
	}
	for _, want.Bucket = range []storage.BucketName{bucketOf(want.ID), otherBucketOf(want.ID, want.Name)} {
		taken, err := c.buckets.BucketExists(ctx, want.Bucket)
		if err != nil {
			return storage.Record{}, err
		}
		if !taken {
			return c.firstRecord(ctx, want)
		}
	}
	return storage.Record{}, bucketTaken(want)
}

func (c *Controller) firstRecord(ctx context.Context, want storage.Record) (storage.Record, error) {
	if err := c.admitRule(ctx, want); err != nil {
		return storage.Record{}, err
	}
	want.Created = now().UTC()
	r, err := c.records.CreateRecord(ctx, want)
	if storage.Is(err, storage.Exists) {
		return storage.Record{}, storage.Errorf(storage.Busy, "volume %s is being created by another controller; try again", want.ID)
	}
	return r, err
}

// compatible says whether the volume that exists is the one that is asked for.
func compatible(have, want storage.Record, s settings, asked *csi.CapacityRange) error {
	switch {
	case have.Inline != nil:
		return storage.Errorf(storage.Exists, "volume id %s belongs to an inline volume of pod %s/%s: choose another name", have.ID, have.Inline.Pod.Namespace, have.Inline.Pod.Name)
	case have.Static != nil:
		return storage.Errorf(storage.Exists, "volume id %s belongs to a PersistentVolume that was made by hand, for bucket %s: choose another name", have.ID, have.Bucket)
	case have.Name != want.Name:
		return storage.Errorf(storage.Exists, "volume id %s belongs to the volume %q already: choose another name", have.ID, have.Name)
	case have.Phase == storage.Deleting:
		return storage.Errorf(storage.Busy, "volume %s is being deleted; try again when that is done", have.ID)
	case !fits(have.Capacity, asked):
		return storage.Errorf(storage.Exists, "volume %s exists with %d bytes, which is not what is asked for (required %d, limit %d)",
			have.ID, have.Capacity, asked.GetRequiredBytes(), asked.GetLimitBytes())
	case have.Access != want.Access:
		return storage.Errorf(storage.Exists, "volume %s exists with access %s, not %s", have.ID, have.Access, want.Access)
	case !maps.Equal(have.Parameters, want.Parameters):
		return storage.Errorf(storage.Exists, "volume %s exists with other parameters: %s", have.ID, difference(have.Parameters, want.Parameters))
	case s.bucket != "" && (have.Bucket != want.Bucket || have.Prefix != want.Prefix):
		return storage.Errorf(storage.Exists, "volume %s exists in bucket %s, folder %q, not in bucket %s, folder %q",
			have.ID, have.Bucket, string(have.Prefix), want.Bucket, string(want.Prefix))
	}
	return nil
}

// settleBucket makes the bucket and records that it is ours, or that we are let
// in.
func (c *Controller) settleBucket(ctx context.Context, r storage.Record, s settings) (storage.Record, error) {
	for {
		settled, err := c.makeBucket(ctx, r)
		if err != nil {
			return storage.Record{}, err
		}
		if settled {
			r.User = userOf(r.ID)
			return c.records.UpdateRecord(ctx, r)
		}
		other := otherBucketOf(r.ID, r.Name)
		if s.bucket != "" || r.Bucket == other {
			// Nothing of ours is left but the record.
			if err := c.records.DeleteRecord(ctx, r.ID); err != nil {
				return storage.Record{}, err
			}
			if s.bucket != "" {
				return storage.Record{}, storage.Errorf(storage.Exists, "volume %s: bucket %s was taken by somebody else meanwhile", r.ID, r.Bucket)
			}
			return storage.Record{}, bucketTaken(r)
		}
		r.Bucket = other
		if r, err = c.records.UpdateRecord(ctx, r); err != nil {
			return storage.Record{}, err
		}
	}
}

// makeBucket reports whether there is now a bucket for r: one that is ours, or one
// that r has adopted and that no other volume owns.
func (c *Controller) makeBucket(ctx context.Context, r storage.Record) (bool, error) {
	if r.Adopted && r.Prefix == "" {
		exists, err := c.buckets.BucketExists(ctx, r.Bucket)
		if err == nil && !exists {
			err = storage.Errorf(storage.NotFound, "bucket %s is gone", r.Bucket)
		}
		return exists, err
	}
	err := c.buckets.CreateBucket(ctx, r.Bucket)
	if !storage.Is(err, storage.Exists) && (err != nil || !r.Adopted) {
		return err == nil, err
	}
	others, err := c.others(ctx, r)
	if err != nil {
		return false, err
	}
	if r.Adopted {
		return ownedBy(others, r) == nil, nil
	}
	if len(others) > 0 {
		return false, nil
	}
	empty, err := c.buckets.BucketEmpty(ctx, r.Bucket)
	if storage.Is(err, storage.NotFound) {
		// SeaweedFS keeps a name for a while after its bucket is gone.
		return false, nil
	}
	return empty, err
}

func bucketTaken(r storage.Record) error {
	return storage.Errorf(storage.Exists, "volume %s: the buckets %s and %s belong to somebody else", r.ID, bucketOf(r.ID), otherBucketOf(r.ID, r.Name))
}
