package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file replaces a volume's keys. A new pair is made and stands in the record,
// the old one works until the overlap ends, and then it and every key that the
// record does not have are ended, those too that somebody added by hand (retire.go).
//
// The rotation is written into the record before the key is made. Without that,
// another controller that ends keys at that moment would take the new one for a
// stray. A second rotation takes over at once, so a crash keeps nobody waiting:
// the first one, if it lives, sees that at its own update and ends its key.

const (
	// maxOverlap is far beyond the time that clients need to read new keys.
	maxOverlap = 30 * 24 * time.Hour
	// maxRetired bounds the keys that work beside the current one. AWS
	// allows two keys per user; SeaweedFS has no limit.
	maxRetired = 3
	// rotationTime bounds the making of a key and its writing into the record.
	rotationTime = time.Minute
	// rotationDead is when whoever ends keys takes a rotation in a record for dead.
	// It is longer, since the clocks of controllers differ.
	rotationDead = 3 * rotationTime
)

// VolumeKeys is what may be told of a volume's keys: no secret.
type VolumeKeys struct {
	Access  string
	Retired []storage.RetiredKey
}

// errDone ends an update that finds nothing to do.
var errDone = errors.New("nothing to do")

// RotateKeys replaces the keys of a volume. After the overlap no key works but the
// new one, whatever an earlier rotation allowed. replace may name the access key
// that is to go: when it has been replaced already, which a repeated call finds,
// nothing is done.
func (c *Controller) RotateKeys(ctx context.Context, id storage.VolumeID, replace string, overlap time.Duration) (VolumeKeys, error) {
	if overlap < 0 || overlap > maxOverlap {
		return VolumeKeys{}, storage.Errorf(storage.Invalid, "overlap %s: 0 to %s is allowed", overlap, maxOverlap)
	}
	var r storage.Record
	err := c.pending.do(ctx, id, "the rotation of keys", func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, rotationTime)
		defer cancel()
		r, err = c.rotate(ctx, id, replace, overlap)
		return err
	})
	if err != nil {
		return VolumeKeys{}, err
	}
	c.retirer.wake()
	return VolumeKeys{Access: r.Keys.Access, Retired: r.Retired}, nil
}

// ReadKeys tells which keys of a volume work.
func (c *Controller) ReadKeys(ctx context.Context, id storage.VolumeID) (VolumeKeys, error) {
	r, err := c.records.GetRecord(ctx, id)
	return VolumeKeys{Access: r.Keys.Access, Retired: r.Retired}, err
}

func (c *Controller) rotate(ctx context.Context, id storage.VolumeID, replace string, overlap time.Duration) (storage.Record, error) {
	r, err := c.beginRotation(ctx, id, replace, overlap)
	if errors.Is(err, errDone) {
		// What the first call could not finish is ended now.
		return c.settleNow(ctx, id)
	}
	if err != nil {
		return storage.Record{}, err
	}
	user := r.User
	if err := c.restore(ctx, r); err != nil {
		return storage.Record{}, err
	}
	keys, err := c.access.AddKeys(ctx, user)
	if err != nil {
		return storage.Record{}, err
	}
	rotation := r.Rotation.ID
	r, err = updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if r.Rotation == nil || r.Rotation.ID != rotation {
			return storage.Errorf(storage.Busy, "volume %s: another rotation of keys was faster; try again", id)
		}
		replaceKeys(r, keys, now().UTC().Add(overlap))
		return nil
	})
	if storage.Is(err, storage.Busy) || storage.Is(err, storage.NotFound) {
		// Nobody else knows this key. After any other error the record may have it.
		return storage.Record{}, errors.Join(err, c.access.EndKeys(ctx, user, []string{keys.Access}))
	}
	if err != nil {
		return storage.Record{}, err
	}
	c.log.InfoContext(ctx, "keys rotated", slog.String("volume", string(id)), slog.Duration("overlap", overlap))
	if r, err = c.settleKeys(ctx, id, user); err != nil {
		return storage.Record{}, fmt.Errorf("volume %s has new keys, but what should have ended has not yet: %w", id, err)
	}
	return r, nil
}

// beginRotation writes into the record that a key is about to be made.
func (c *Controller) beginRotation(ctx context.Context, id storage.VolumeID, replace string, overlap time.Duration) (storage.Record, error) {
	return updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if err := checkReady(r); err != nil {
			return err
		}
		if replace != "" && replace != r.Keys.Access {
			return errDone
		}
		at := now().UTC()
		if left := working(r.Retired, at); overlap > 0 && len(left) >= maxRetired {
			return storage.Errorf(storage.InUse, "volume %s has %d old keys that still work, the first until %s: wait for that, or end them all with an overlap of 0",
				id, len(left), left[0].Until.Format(time.RFC3339))
		}
		r.Rotation = &storage.Rotation{ID: rand.Text(), Begun: at}
		return nil
	})
}

// replaceKeys makes keys the record's own. The older ones end at until, or before.
func replaceKeys(r *storage.Record, keys storage.Keys, until time.Time) {
	old := storage.RetiredKey{Access: r.Keys.Access, Until: until}
	r.Retired = append(slices.Clone(r.Retired), old)
	for i, k := range r.Retired {
		if k.Until.After(until) {
			r.Retired[i].Until = until
		}
	}
	slices.SortStableFunc(r.Retired, func(a, b storage.RetiredKey) int { return a.Until.Compare(b.Until) })
	r.Keys, r.Rotation = keys, nil
}

// working are the retired keys whose end has not come.
func working(retired []storage.RetiredKey, at time.Time) []storage.RetiredKey {
	var left []storage.RetiredKey
	for _, k := range retired {
		if at.Before(k.Until) {
			left = append(left, k)
		}
	}
	return left
}
