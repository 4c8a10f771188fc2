package driver

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file has the content of a volume placed as its parameters say. It is a rule of
// the store for the volume's root, so it holds for S3 too. There may be one rule for a
// root, and it cannot carry its owner's name: whether it is ours is known by the record,
// which is written only while there is none, and before it is made. The risk accepted:
// one that says the same, made by somebody else between the two, is taken for ours.
//
// Two volumes may have one root, but one rule would then go with the first of them that
// is deleted: so a volume that asks for a placement is the only one at its root that
// does.

// judge says, before anything is made, whether the store has the servers for what is
// asked for, and returns those that there are; none where nothing is asked for.
func (c *Controller) judge(ctx context.Context, p storage.Placement) (storage.Topology, error) {
	if p.IsZero() {
		return nil, nil
	}
	if c.placer == nil {
		return nil, storage.Errorf(storage.Invalid, "%s: content is not placed here; leave it out", p)
	}
	t, err := c.placer.Topology(ctx)
	if err != nil {
		return nil, err
	}
	return t, t.Check(p)
}

// admitRule says whether the root that a volume is about to have is free of rules.
func (c *Controller) admitRule(ctx context.Context, want storage.Record) error {
	if want.Placement.IsZero() {
		return nil
	}
	if err := c.rivals(ctx, want); err != nil {
		return err
	}
	have, found, err := c.placer.Placed(ctx, want.Bucket, want.Prefix)
	if err != nil || !found {
		return err
	}
	says := "another purpose"
	if !have.IsZero() {
		says = have.String()
	}
	return storage.Errorf(storage.Exists, "place volume %s: somebody else has made a rule for bucket %s, folder %q (%s): remove it by weed shell's fs.configure, or leave %s out",
		want.ID, want.Bucket, string(want.Prefix), says, want.Placement)
}

// place makes the rule. Of two volumes that were admitted to one root at the same time
// neither gets it: each looks once its own record is written.
func (c *Controller) place(ctx context.Context, r storage.Record) error {
	if r.Placement.IsZero() {
		return nil
	}
	if err := c.rivals(ctx, r); err != nil {
		return err
	}
	if err := c.placer.Place(ctx, r.Bucket, r.Prefix, r.Placement); err != nil {
		return fmt.Errorf("place volume %s: %w", r.ID, err)
	}
	return nil
}

// rivals refuses a root where another volume has its placement.
func (c *Controller) rivals(ctx context.Context, r storage.Record) error {
	list, err := c.placedThere(ctx, r)
	if err != nil || len(list) == 0 {
		return err
	}
	return storage.Errorf(storage.Exists, "place volume %s: bucket %s, folder %q is placed for volume %s already (%s): there is one rule for a folder; leave %s out",
		r.ID, r.Bucket, string(r.Prefix), list[0].ID, list[0].Placement, r.Placement)
}

// placedThere are other volumes with the same root and a placement.
func (c *Controller) placedThere(ctx context.Context, r storage.Record) ([]storage.Record, error) {
	others, err := c.others(ctx, r)
	if err != nil {
		return nil, err
	}
	var list []storage.Record
	for _, o := range others {
		if o.Prefix == r.Prefix && !o.Placement.IsZero() {
			list = append(list, o)
		}
	}
	return list, nil
}

// unplace takes the rule away, unless it is that of another volume. Before a volume is
// settled it has none.
func (c *Controller) unplace(ctx context.Context, r storage.Record) error {
	if r.Placement.IsZero() || r.User == "" {
		return nil
	}
	if c.placer == nil {
		return storage.Errorf(storage.Unsupported, "volume %s has a rule (%s) that this controller cannot remove", r.ID, r.Placement)
	}
	list, err := c.placedThere(ctx, r)
	if err != nil {
		return err
	}
	for _, o := range list {
		// Of two that are being deleted the one with the smaller id does it.
		if o.Phase != storage.Deleting || o.ID < r.ID {
			return nil
		}
	}
	if err := c.placer.Unplace(ctx, r.Bucket, r.Prefix, r.Placement); err != nil {
		return fmt.Errorf("remove the rule of volume %s: %w", r.ID, err)
	}
	return nil
}
