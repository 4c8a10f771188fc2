package driver

import (
	"context"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// DeleteVolume implements csi.ControllerServer. A volume that is not there is
// deleted, and so is one that is archived.
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
	archived := false
	// The condition on the record's update is the fence: a node that staged the
	// volume since it was read has changed it, and is seen in the next round.
	r, err := updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if err := c.unused(r); err != nil {
			return err
		}
		archived = r.Phase == storage.Archived
		if !archived {
			r.Phase = storage.Deleting
		}
		return nil
	})
	if err != nil {
		return err
	}
	if archived {
		return c.forgetArchived(ctx, r)
	}
	// The user goes first: a writer must not put objects into a bucket that is
	// being emptied.
	if r.User != "" {
		if err := c.access.Revoke(ctx, r.User); err != nil {
			return err
		}
	}
	if err := c.freeHeld(ctx, r); err != nil {
		return err
	}
	if r.OnDelete == storage.Archive && r.User != "" {
		r.Phase, r.Keys = storage.Archived, storage.Keys{}
		r.Retired, r.Rotation = nil, nil
		if _, err := c.records.UpdateRecord(ctx, r); err != nil {
			return err
		}
		c.log.InfoContext(ctx, "volume archived", slog.String("volume", string(id)), slog.String("bucket", string(r.Bucket)))
		return nil
	}
	if err := c.deleteBucket(ctx, r); err != nil {
		return err
	}
	if err := c.unplace(ctx, r); err != nil {
		return err
	}
	if err := c.records.DeleteRecord(ctx, id); err != nil {
		return err
	}
	c.log.InfoContext(ctx, "volume deleted", slog.String("volume", string(id)), slog.String("bucket", string(r.Bucket)))
	return nil
}

// freeHeld frees what dead nodes hold of the volume: once its record is gone nobody
// knows its nodes, and of a bucket that stays it would take room for ever. No lease
// lives, and none is given any more. What is in the way does not keep the volume.
func (c *Controller) freeHeld(ctx context.Context, r storage.Record) error {
	if c.held == nil {
		return nil
	}
	kept, err := c.held.FreeHeld(ctx, r.ID)
	if storage.Is(err, storage.Unavailable) || storage.IsContext(err) {
		return err
	}
	if err != nil || len(kept) > 0 {
		c.log.WarnContext(ctx, "content of files without a name may stay", slog.String("volume", string(r.ID)), slog.Any("kept", kept), slog.Any("err", err))
	}
	return nil
}

// unused says which node's lease keeps a volume from being deleted.
func (c *Controller) unused(r *storage.Record) error {
	live := c.seen.Live(r)
	if len(live) == 0 {
		return nil
	}
	return storage.Errorf(storage.InUse, "volume %s is in use on node %s; unmount it there first (a node that is gone keeps it until %s at the longest: then try again)",
		r.ID, live[0], time.Now().Add(c.seen.Left(r, live[0])).UTC().Format(time.RFC3339))
}

// forgetArchived removes the record of an archived volume whose bucket is gone. As
// long as it is there, a deletion changes nothing.
func (c *Controller) forgetArchived(ctx context.Context, r storage.Record) error {
	exists, err := c.buckets.BucketExists(ctx, r.Bucket)
	if err != nil || exists {
		return err
	}
	if err := c.unplace(ctx, r); err != nil {
		return err
	}
	return c.records.DeleteRecord(ctx, r.ID)
}

// deleteBucket removes the volume's bucket, if it is the volume's and not to be
// kept. One that was never settled is ours only if it is empty and nobody else's
// (create.go), so one with content stays.
func (c *Controller) deleteBucket(ctx context.Context, r storage.Record) error {
	if r.Adopted || r.OnDelete == storage.Retain && r.User != "" {
		return nil
	}
	if r.User == "" {
		others, err := c.others(ctx, r)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return nil
		}
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
