package seaweed

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// rootMode of a new volume: any user of the pod may write, as on a scratch
// volume; whoever wants less changes it, and it stays changed.
const rootMode = fs.ModeDir | 0o777

// Prepare makes a bucket, or a folder of it, fit to be mounted: the folder is
// there, its root has an owner and a mode, empty folders are kept, and volumes are
// grown for the first write. Repeating it changes nothing.
func (c *Client) Prepare(ctx context.Context, b storage.BucketName, folder storage.Path) error {
	err := c.prepareBucket(ctx, b, folder == "")
	if err == nil && folder != "" {
		err = c.prepareFolder(ctx, b, folder)
	}
	if err == nil {
		err = c.chunks(b, folder).warm(ctx)
	}
	if err != nil {
		return fmt.Errorf("prepare %s: %w", path.Join(string(b), string(folder)), err)
	}
	return nil
}

// prepareBucket sees to it that empty folders are kept, and that the bucket can be
// a volume's root, if it is to be one.
func (c *Client) prepareBucket(ctx context.Context, b storage.BucketName, root bool) error {
	for {
		e, err := c.entry(ctx, bucketsDir, string(b))
		if err != nil {
			return err
		}
		was := e.Origin.(origin).entry
		if state := string(was.GetExtended()[s3Versioning]); state != "" {
			return storage.Errorf(storage.Invalid, "bucket %s keeps old versions (versioning: %s): its objects cannot be mounted; use another bucket", b, state)
		}
		if string(was.GetExtended()[s3AllowEmpty]) == "true" && (e.Native || !root) {
			return nil
		}
		if root && !e.Native {
			asRoot(&e)
		}
		next := toWire(e)
		if next.Extended == nil {
			next.Extended = map[string][]byte{}
		}
		next.Extended[s3AllowEmpty] = []byte("true")
		if _, err = c.send(ctx, bucketsDir, was, next); !storage.Is(err, storage.Changed) {
			return err
		} // else the gateway wrote it meanwhile
	}
}

// prepareFolder makes the folder, and what is missing above it.
func (c *Client) prepareFolder(ctx context.Context, b storage.BucketName, folder storage.Path) error {
	v := &bucket{Client: c, root: rootOf(b, "")}
	for {
		at := storage.Path("")
		for name := range strings.SplitSeq(string(folder), "/") {
			at = at.Join(name)
			if err := v.makeFolder(ctx, at); err != nil {
				return err
			}
		}
		e, err := v.Lookup(ctx, folder)
		if err != nil {
			return err
		}
		if e.Native {
			return nil
		}
		asRoot(&e)
		// The filer's own number is made from the path and not unique, and a mount of
		// the whole bucket would believe this one.
		e.Inode = rand.Uint64()>>2 | 1<<40 //nolint:gosec // not a secret
		if _, err = v.Update(ctx, folder, e); !storage.Is(err, storage.Changed) && !storage.Is(err, storage.NotFound) {
			return err
		}
	}
}

func (b *bucket) makeFolder(ctx context.Context, p storage.Path) error {
	e, err := b.Lookup(ctx, p)
	if storage.Is(err, storage.NotFound) {
		now := time.Now()
		e, err = b.Create(ctx, p, storage.Entry{Mode: fs.ModeDir | 0o755, Mtime: now, Btime: now}, false)
		if storage.Is(err, storage.Exists) {
			e, err = b.Lookup(ctx, p)
		}
	}
	if err == nil && !e.IsDir() {
		err = storage.Errorf(storage.Invalid, "%q is an object: a volume's folder cannot be there", p)
	}
	return err
}

func asRoot(e *storage.Entry) {
	now := time.Now()
	e.Native, e.Mode, e.UID, e.GID = true, rootMode, 0, 0
	e.Mtime, e.Ctime, e.Atime = now, now, now
}
