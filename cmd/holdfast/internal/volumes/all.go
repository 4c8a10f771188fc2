package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// MountAll mounts everything that is recorded, and calls progress before each.
// One that cannot be mounted does not keep the others from it.
func (c *Client) MountAll(ctx context.Context, progress func(Record)) error {
	records, err := ReadRecords(c.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range records {
		progress(r)
		if err := c.again(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("volume %q is not mounted at %s again: %w", r.Name, r.Target, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// again mounts one record, with the target made anew if it is gone.
func (c *Client) again(ctx context.Context, r Record) error {
	there, err := mounted(r.Target)
	if err != nil {
		return err
	}
	if there == nil {
		if err := r.Folder.keep(r.Target); err != nil {
			return err
		}
		if _, err := prepareTarget(r.Target, os.Getuid()); err != nil {
			return err
		}
	}
	return c.attach(ctx, r)
}

// UnmountAll unmounts everything and keeps the records. If one mount is busy,
// those that it had unmounted are mounted again: all or nothing.
func (c *Client) UnmountAll(ctx context.Context, progress func(Record)) error {
	records, err := ReadRecords(c.dir)
	if err != nil {
		return err
	}
	for i, r := range records {
		progress(r)
		err := c.detach(ctx, r)
		if err == nil {
			err = r.Folder.keep(r.Target)
		}
		if err == nil {
			continue
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		for _, back := range records[:i+1] {
			if backErr := c.again(undo, back); backErr != nil {
				err = errors.Join(err, fmt.Errorf("volume %q is not mounted at %s again: %w", back.Name, back.Target, backErr))
			}
		}
		return err
	}
	return nil
}
