package driver

import (
	"context"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// DeleteVolume implements csi.ControllerServer. A volume that is not there is
// deleted.
func (c *Controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id, err := checkVolumeID(req.GetVolumeId())
	if err == nil {
		err = c.pending.do(ctx, id, "DeleteVolume", func() error { return c.delete(ctx, id) })
	}
	if err != nil && !storage.Is(err, storage.NotFound) {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

func (c *Controller) delete(ctx context.Context, id storage.VolumeID) error {
	// The condition on the record's update is the fence: a node that staged the
	// volume since it was read has changed it, and is seen in the next round.
	r, err := updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if err := c.unused(r); err != nil {
			return err
		}
		r.Phase = storage.Deleting
		return nil
	})
	if err != nil {
		return err
	}
	// The user goes first: a writer must not put objects into a bucket that is
	// being emptied.
	if r.User != "" {
		if err := c.access.Revoke(ctx, r.User); err != nil {
			return err
		}
	}
	if err := c.deleteBucket(ctx, r); err != nil {
		return err
	}
	if err := c.records.DeleteRecord(ctx, id); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "volume deleted", slog.String("volume", string(id)), slog.String("bucket", string(r.Bucket)))
	return nil
}

// unused says which node's lease keeps a volume from being deleted.
func (c *Controller) unused(r *storage.Record) error {
	for _, node := range c.seen.Live(r) {
		left := c.seen.Left(r, node)
		return storage.Errorf(storage.InUse, "volume %s is in use on node %s; unmount it there first (a node that is gone keeps it until %s at the longest: then try again)",
			r.ID, node, time.Now().Add(left).UTC().Format(time.RFC3339))
	}
	return nil
}

// deleteBucket removes the volume's bucket. One that was never settled is ours
// only if it is empty (create.go), so one with content stays.
func (c *Controller) deleteBucket(ctx context.Context, r storage.Record) error {
	if r.User == "" {
		empty, err := c.buckets.BucketEmpty(ctx, r.Bucket)
		if storage.Is(err, storage.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if !empty {
			c.log.WarnContext(ctx, "bucket left alone: it has content and was never the volume's",
				slog.String("volume", string(r.ID)), slog.String("bucket", string(r.Bucket)))
			return nil
		}
	}
	return c.buckets.DeleteBucket(ctx, r.Bucket)
}
