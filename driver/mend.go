package driver

import (
	"context"
	"log/slog"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file looks whether the S3 user of a volume is what was made for it, and makes it
// so again: at a repeated CreateVolume and at a rotation of keys. Nothing does it by
// itself: whoever changed the user by hand may have wanted to shut somebody out. For the
// same reason a key that is gone does not come back, the volume gets another one. Mounts
// do not use the user, so they go on meanwhile.

// flaw says what is wrong with the user of a volume that is ready; "" when nothing is.
func (c *Controller) flaw(ctx context.Context, r storage.Record) (flaw string, keyless bool, err error) {
	listed, err := c.access.ListKeys(ctx, r.User)
	if err != nil && !storage.Is(err, storage.Corrupt) { // which Check tells
		return "", false, err
	}
	if flaw, err = c.access.Check(ctx, r.User, r.Bucket, r.Prefix); err != nil {
		return "", false, err
	}
	keyless = !slices.Contains(listed, r.Keys.Access)
	if flaw == "" && keyless {
		flaw = "the key of user " + r.User + " that the volume's record has is gone"
	}
	return flaw, keyless, nil
}

// mend makes the user what it was, with another key if its key is gone.
func (c *Controller) mend(ctx context.Context, r storage.Record) (storage.Record, error) {
	flaw, keyless, err := c.flaw(ctx, r)
	if err != nil || flaw == "" {
		return r, err
	}
	c.log.WarnContext(ctx, "the volume's S3 user was changed by somebody; it is made as it was", slog.String("volume", string(r.ID)), slog.String("flaw", flaw))
	if keyless {
		return c.rotate(ctx, r.ID, r.Keys.Access, 0)
	}
	return r, c.access.Restore(ctx, r.User, r.Bucket, r.Prefix)
}

// restore is mend for who gives the user another key anyway.
func (c *Controller) restore(ctx context.Context, r storage.Record) error {
	flaw, err := c.access.Check(ctx, r.User, r.Bucket, r.Prefix)
	if err != nil || flaw == "" {
		return err
	}
	return c.access.Restore(ctx, r.User, r.Bucket, r.Prefix)
}
