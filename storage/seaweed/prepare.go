package seaweed

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// rootMode of a new volume: any user of the pod may write, as on a scratch
// volume; whoever wants less changes it, and it stays changed.
const rootMode = fs.ModeDir | 0o777

// Prepare makes a new bucket fit to be mounted: its root gets an owner and a
// mode, empty folders are kept, and volumes are grown for the first write.
// Repeating it changes nothing.
func (c *Client) Prepare(ctx context.Context, b storage.BucketName) error {
	for {
		e, err := c.entry(ctx, bucketsDir, string(b))
		if err != nil {
			return fmt.Errorf("prepare bucket %s: %w", b, err)
		}
		if e.Native {
			break
		}
		now := time.Now()
		e.Native, e.Mode, e.UID, e.GID = true, rootMode, 0, 0
		e.Mtime, e.Ctime, e.Atime = now, now, now
		w := e.Origin.(origin)
		entry := toWire(e)
		entry.Extended[s3AllowEmpty] = []byte("true")
		if _, err = c.send(ctx, bucketsDir, w.entry, entry); storage.Is(err, storage.Changed) {
			continue // the gateway wrote it meanwhile
		}
		if err != nil {
			return fmt.Errorf("prepare bucket %s: %w", b, err)
		}
		break
	}
	if err := c.chunks(b).warm(ctx); err != nil {
		return fmt.Errorf("prepare bucket %s: %w", b, err)
	}
	return nil
}
