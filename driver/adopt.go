package driver

import (
	"context"
	"path"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file decides which bucket and folder a volume may have when its parameters
// name them (PARAMETERS.md has the rules). A bucket that was there before is
// marked as adopted in the very first record, so a crash never makes an owner of
// whoever was only let in.

// allot writes the bucket and the folder that the parameters name into want.
// Nothing is looked at yet.
func allot(want *storage.Record, s settings, given map[string]string) error {
	want.OnDelete = s.onDelete
	if want.OnDelete == "" {
		want.OnDelete = storage.DeleteData
	}
	if s.bucket == "" {
		return nil
	}
	name, err := s.bucket.fill(given)
	if err == nil {
		err = checkBucket(name)
	}
	if err != nil {
		return err
	}
	want.Bucket = storage.BucketName(name)
	if s.prefix == "" {
		return nil
	}
	folder, err := s.prefix.fill(given)
	if err != nil {
		return err
	}
	if err := storage.Path(folder).CheckFolder(); err != nil {
		return storage.Errorf(storage.Invalid, "parameter prefix: %w", err)
	}
	// Who makes the bucket does not matter: it is for folders.
	want.Prefix, want.Adopted = storage.Path(folder), true
	return nil
}

// admit says whether the volume may have what was allotted to it, and marks it as
// adopted if that is there already.
func (c *Controller) admit(ctx context.Context, want *storage.Record, s settings) error {
	exists, err := c.buckets.BucketExists(ctx, want.Bucket)
	if err != nil {
		return err
	}
	// Looked at after the bucket: whoever makes one has written its record before.
	others, err := c.others(ctx, *want)
	if err != nil {
		return err
	}
	if err := ownedBy(others, *want); err != nil {
		return err
	}
	if want.Prefix != "" {
		return c.admitFolder(ctx, *want, s, others, exists)
	}
	switch {
	case !exists && len(others) > 0:
		return storage.Errorf(storage.NotFound, "bucket %s of volume %s and others is gone", want.Bucket, others[0].ID)
	case !exists:
		return nil
	case !s.bucket.fixed():
		return storage.Errorf(storage.Exists, "bucket %s exists already: one that is named by a template (bucketName %q) has to be new; name the bucket without ${…} to use one that is there", want.Bucket, string(s.bucket))
	case s.onDelete != storage.Retain && s.onDelete != storage.Archive:
		return storage.Errorf(storage.Invalid, "bucket %s exists already, and would be deleted with the volume: give onDelete=retain or onDelete=archive to use it, or another bucketName", want.Bucket)
	}
	want.Adopted = true
	return c.fitting(ctx, *want)
}

// countFor bounds the count of what lies in a bucket: it ends at once when it has found
// more than it may, and very many small files are no reason to refuse a volume.
const countFor = 10 * time.Second

// fitting refuses a size below what is there already: the mount would be full before
// anybody has written.
func (c *Controller) fitting(ctx context.Context, want storage.Record) error {
	if c.content == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	more, err := c.content.Exceeds(bounded, want.Bucket, want.Prefix, want.Capacity)
	switch {
	case more:
		return storage.Errorf(storage.OutOfRange, "volume %s: a size of %d bytes is below what lies in %s already: give a larger one", want.ID, want.Capacity, path.Join(string(want.Bucket), string(want.Prefix)))
	case err != nil && ctx.Err() == nil && bounded.Err() != nil:
		c.log.WarnContext(ctx, "what lies in a bucket was not counted to its end", "volume", want.ID, "bucket", want.Bucket, "path", want.Prefix)
		return nil
	}
	return err
}

func (c *Controller) admitFolder(ctx context.Context, want storage.Record, s settings, others []storage.Record, exists bool) error {
	if s.bucket.fixed() && s.prefix.fixed() {
		if !exists {
			return nil
		}
		return c.fitting(ctx, want)
	}
	for _, o := range others {
		if o.Prefix.Within(want.Prefix) || want.Prefix.Within(o.Prefix) {
			return storage.Errorf(storage.Exists, "folder %s of bucket %s belongs to volume %s already (its folder is %q): a template never leads to another volume's data", want.Prefix, want.Bucket, o.ID, string(o.Prefix))
		}
	}
	if !exists {
		return nil
	}
	empty, err := c.buckets.FolderEmpty(ctx, want.Bucket, want.Prefix)
	if err != nil {
		return err
	}
	if !empty {
		return storage.Errorf(storage.Exists, "folder %s of bucket %s has content already: one that is named by a template has to be empty; name it without ${…} to use what is there", want.Prefix, want.Bucket)
	}
	return nil
}

// ownedBy refuses a bucket that was made for another volume.
func ownedBy(others []storage.Record, want storage.Record) error {
	for _, o := range others {
		if !o.Adopted {
			return storage.Errorf(storage.Exists, "bucket %s belongs to volume %s, and goes with it: volume %s cannot have it", want.Bucket, o.ID, want.ID)
		}
	}
	return nil
}

// others are the records of other volumes with the same bucket.
func (c *Controller) others(ctx context.Context, of storage.Record) ([]storage.Record, error) {
	var found []storage.Record
	for r, err := range storage.RecordsAfter(ctx, c.records, "") {
		if err != nil {
			return nil, err
		}
		if r.Bucket == of.Bucket && r.ID != of.ID {
			found = append(found, r)
		}
	}
	return found, nil
}
