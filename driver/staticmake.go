package driver

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the controller's side of PersistentVolumes that bring in a bucket
// (static.go): it lets them in by the rules of CreateVolume, or says why not.

const (
	// staticEvery is how often they are looked for, among all records: it is the first
	// mount of a bucket that waits for it, once.
	staticEvery = 5 * time.Second
	// refusalKept is how long a refusal stands, for the nodes to read. Then it is forgotten
	// and, if it is asked for again, judged anew.
	refusalKept = 10 * time.Second
)

// tendStatic begins, by start, what each of them needs.
func (c *Controller) tendStatic(ctx context.Context, start func(do func())) {
	for r, err := range storage.RecordsAfter(ctx, c.records, "") {
		if err != nil {
			if ctx.Err() == nil {
				c.log.DebugContext(ctx, "volumes of PersistentVolumes not looked at", slog.Any("err", err))
			}
			return
		}
		if r.Static != nil {
			c.tendOne(ctx, r, start)
		}
	}
}

// staticNeeds is what one of them needs now, nil for nothing.
func (c *Controller) staticNeeds(r *storage.Record) (what string, do func(context.Context, storage.VolumeID) error) {
	age := now().Sub(r.Static.Refused)
	switch {
	case r.Phase == storage.Creating && r.Static.Refusal == nil:
		return "let a bucket in", c.makeStatic
	case r.Static.Refusal != nil && (age > refusalKept || age < 0): // another controller's clock may be ahead
		return "forget a refusal", c.delete
	}
	return "", nil // any other deletion is its caller's to repeat
}

// makeStatic makes what belongs to the record that a node has written, or writes into it
// why that is not possible.
func (c *Controller) makeStatic(ctx context.Context, id storage.VolumeID) error {
	r, err := c.records.GetRecord(ctx, id)
	if err != nil || r.Static == nil || r.Phase != storage.Creating || r.Static.Refusal != nil {
		return err
	}
	s, err := parseParams(r.Parameters)
	if err != nil {
		return storage.Errorf(storage.Corrupt, "record of volume %s: %w", id, err)
	}
	if err = c.admitStatic(ctx, r); err == nil {
		_, err = c.complete(ctx, r, s)
	}
	if err == nil || !refuses[storage.KindOf(err)] || storage.IsContext(err) {
		return err
	}
	refusal := &storage.Refusal{Kind: storage.KindOf(err), Text: err.Error()}
	_, err = updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if r.Static == nil || r.Phase != storage.Creating {
			return storage.Errorf(storage.Changed, "volume %s was made meanwhile", id)
		}
		r.Static = &storage.Static{Refusal: refusal, Refused: now().UTC()}
		return nil
	})
	return err
}

// refuses are the kinds of an answer, and not of a failure that passes by itself.
//
//nolint:exhaustive // the others pass
var refuses = map[storage.Kind]bool{
	storage.NotFound: true, storage.Exists: true, storage.Invalid: true, storage.OutOfRange: true, storage.Denied: true, storage.Unsupported: true,
}

// admitStatic says whether the volume may have the bucket: it has to be there, no other
// volume's, and to hold no more than the volume.
func (c *Controller) admitStatic(ctx context.Context, r storage.Record) error {
	exists, err := c.buckets.BucketExists(ctx, r.Bucket)
	if err != nil {
		return err
	}
	if !exists {
		return storage.Errorf(storage.NotFound, "attribute %s=%q of volume %s: there is no such bucket: a PersistentVolume brings in one that is there, and a claim makes a new one", bucketAttribute, r.Bucket, r.ID)
	}
	others, err := c.others(ctx, r)
	if err == nil {
		err = ownedBy(others, r)
	}
	if err != nil || r.Capacity == unbounded {
		return err
	}
	return c.fitting(ctx, r)
}
