package seaweed

import (
	"context"
	"crypto/md5"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// This file keeps the rules by which the filer places chunks. It finds them by the
// path that an assignment names, and the gateway's assignments name the object's, so
// one rule holds for mounts and for S3. The filer has taken a changed rule before it
// answers; other filers hear of it like any subscriber.
//
// What lost: to send the placement with each assignment, as weed's own mount does. S3
// writers would not be held to it.

// rulesDir and rulesName are where the filer has its rules.
const (
	rulesDir  = "/etc/seaweedfs"
	rulesName = "filer.conf"
)

var _ storage.Placer = (*Client)(nil)

// rulePrefix ends with a slash: the filer compares letters, and photos is not to have
// the rule of photo.
func rulePrefix(b storage.BucketName, folder storage.Path) string { return rootOf(b, folder) + "/" }

// Placed implements storage.Placer.
func (c *Client) Placed(ctx context.Context, b storage.BucketName, folder storage.Path) (storage.Placement, bool, error) {
	r, _, err := c.rules(ctx)
	if err != nil {
		return storage.Placement{}, false, err
	}
	i := r.find(rulePrefix(b, folder))
	if i < 0 {
		return storage.Placement{}, false, nil
	}
	return placementIn(r.locations[i]), true, nil
}

// Place implements storage.Placer.
func (c *Client) Place(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	prefix := rulePrefix(b, folder)
	return c.editRules(ctx, func(r *rules) (bool, error) {
		i := r.find(prefix)
		if i < 0 {
			r.add(prefix, p)
			return true, nil
		}
		if have := placementIn(r.locations[i]); have != p {
			return false, storage.Errorf(storage.Exists, "the filer has another rule for %s (%s): weed shell's fs.configure shows it", prefix, describe(have))
		}
		return false, nil
	})
}

func describe(p storage.Placement) string {
	if p.IsZero() {
		return "not of placement"
	}
	return p.String()
}

// Unplace implements storage.Placer. What others have added to the rule stays.
func (c *Client) Unplace(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	return c.editRules(ctx, func(r *rules) (bool, error) {
		i := r.find(rulePrefix(b, folder))
		if i < 0 || placementIn(r.locations[i]) != p {
			return false, nil
		}
		r.take(i)
		return true, nil
	})
}

// rules reads the document, and the entry that holds it, nil when there is none.
func (c *Client) rules(ctx context.Context) (rules, *filerpb.Entry, error) {
	e, err := c.entry(ctx, rulesDir, rulesName)
	if storage.Is(err, storage.NotFound) {
		r, err := parseRules(nil)
		return r, nil, err
	}
	if err != nil {
		return rules{}, nil, fmt.Errorf("read the filer's rules: %w", err)
	}
	if len(e.Chunks) > 0 {
		return rules{}, nil, storage.Errorf(storage.Unsupported, "the filer's rules in %s/%s are not within their entry; weed shell's fs.configure -apply writes them there", rulesDir, rulesName)
	}
	r, err := parseRules(e.Inline)
	return r, e.Origin.(origin).entry, err
}

// editRules changes the document, provided that it is still as it was read. edit says
// whether it has changed anything; it may be called again. Our own changes wait for
// each other, so that they do not undo each other's reading.
func (c *Client) editRules(ctx context.Context, edit func(*rules) (bool, error)) error {
	select {
	case c.placing <- struct{}{}:
		defer func() { <-c.placing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, maxBackoff) {
		err := c.tryRules(bounded, edit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if storage.IsContext(err) {
			return storage.Errorf(storage.Unavailable, "the filer's rules could not be changed within %v", c.timeout)
		}
		if !storage.Is(err, storage.Changed) {
			return err
		}
		select {
		case <-bounded.Done():
		case <-time.After(jitter(wait)):
		}
	}
}

func (c *Client) tryRules(ctx context.Context, edit func(*rules) (bool, error)) error {
	r, was, err := c.rules(ctx)
	if err != nil {
		return err
	}
	changed, err := edit(&r)
	if err != nil || !changed {
		return err
	}
	body, err := r.encode()
	if err != nil {
		return err
	}
	sum, now := md5.Sum(body), time.Now()
	if was == nil {
		_, err = c.create(ctx, rulesDir, toWire(storage.Entry{
			Name: rulesName, Mode: fs.FileMode(0o644), Size: int64(len(body)), Inline: body, MD5: sum[:], Mtime: now, Btime: now,
		}))
		if storage.Is(err, storage.Exists) {
			err = storage.Errorf(storage.Changed, "the filer's rules: %w", err)
		}
		return err
	}
	// weed's own writers compare the MD5.
	next := beside(was)
	next.Content = body
	next.Attributes.FileSize, next.Attributes.Md5 = uint64(len(body)), sum[:]
	next.Attributes.Mtime, next.Attributes.MtimeNs = wireTime(now)
	_, err = c.send(ctx, rulesDir, was, next)
	return err
}
