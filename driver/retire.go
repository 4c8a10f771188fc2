package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file ends what a rotation replaced, when its time has come, also when the
// controller that made it is dead: the records tell. A key that the record does
// not have at all, since a crash came between its making and its writing or since
// somebody added it by hand, ends with the next rotation or end.

const (
	// retireEvery is how often all records are looked at: another controller may
	// have rotated. What this one rotated it knows to the moment.
	retireEvery = time.Minute
	// retireAgain is the pause after something could not be done.
	retireAgain = 5 * time.Second
	// retireTime bounds the end of one volume's keys.
	retireTime = time.Minute
	// retireRounds bounds the race with a user that makes keys while they end.
	retireRounds = 10
)

// retirer wakes Run.
type retirer chan struct{}

func newRetirer() retirer { return make(retirer, 1) }

func (r retirer) wake() {
	select {
	case r <- struct{}{}:
	default: // it is awake
	}
}

// Run ends keys whose time has come, and makes and deletes inline volumes, until ctx
// ends.
func (c *Controller) Run(ctx context.Context) error {
	var inline sync.WaitGroup
	inline.Go(func() { c.runInline(ctx) })
	defer inline.Wait()
	for {
		next := time.NewTimer(c.retireDue(ctx))
		select {
		case <-ctx.Done():
			next.Stop()
			return ctx.Err()
		case <-next.C:
		case <-c.retirer:
			next.Stop()
		}
	}
}

// retireDue ends what is due and returns how long there is nothing to do.
func (c *Controller) retireDue(ctx context.Context) time.Duration {
	wait := retireEvery
	for r, err := range storage.RecordsAfter(ctx, c.records, "") {
		if err != nil {
			c.notRetired(ctx, "", err)
			return retireAgain
		}
		wait = min(wait, c.retireIfDue(ctx, r))
		c.tendOne(ctx, r, func(do func()) { do() })
	}
	return wait
}

// retireIfDue returns how long this volume needs nothing.
func (c *Controller) retireIfDue(ctx context.Context, r storage.Record) time.Duration {
	if wait := untilDue(r); wait > 0 {
		return wait
	}
	wait := retireAgain
	c.pending.doQuietly(r.ID, func() {
		ctx, cancel := context.WithTimeout(ctx, retireTime)
		defer cancel()
		settled, err := c.settleKeys(ctx, r.ID, r.User)
		switch {
		case err == nil:
			wait = untilDue(settled)
		case storage.Is(err, storage.NotFound):
			wait = retireEvery // deleted meanwhile
		default:
			c.notRetired(ctx, r.ID, err)
		}
	})
	return wait
}

// dueAt is when something of the volume's keys is to be done; zero for never.
func dueAt(r storage.Record) time.Time {
	if r.Phase != storage.Ready {
		return time.Time{} // a deletion ends all keys
	}
	var due time.Time
	if len(r.Retired) > 0 {
		due = r.Retired[0].Until
	}
	if r.Rotation != nil {
		if dead := r.Rotation.Begun.Add(rotationDead); due.IsZero() || dead.Before(due) {
			due = dead
		}
	}
	return due
}

// untilDue is how long the volume needs nothing, as far as its record tells.
func untilDue(r storage.Record) time.Duration {
	if due := dueAt(r); !due.IsZero() {
		return due.Sub(now())
	}
	return retireEvery
}

// notRetired tells it, unless we are about to end.
func (c *Controller) notRetired(ctx context.Context, id storage.VolumeID, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	c.log.WarnContext(ctx, "old keys not ended yet", slog.String("volume", string(id)),
		slog.String("kind", storage.KindOf(err).String()), slog.Any("err", err))
}

// settleNow is settleKeys for who has not read the record.
func (c *Controller) settleNow(ctx context.Context, id storage.VolumeID) (storage.Record, error) {
	r, err := c.records.GetRecord(ctx, id)
	if err != nil {
		return storage.Record{}, err
	}
	return c.settleKeys(ctx, id, r.User)
}

// settleKeys ends every key of the volume's user but the current one and those
// that are retired and not over, and then takes out of the record what has ended.
//
// The keys are listed before the record is read: one that is made after the list
// is not in it, and one that was made before is in the record, or its rotation is.
// A dead rotation is replaced by one of our own, which fences the dead one, and
// which stands until its key is gone: a crash leaves it for the next to find.
func (c *Controller) settleKeys(ctx context.Context, id storage.VolumeID, user string) (storage.Record, error) {
	ours := rand.Text()
	for range retireRounds {
		listed, err := c.access.ListKeys(ctx, user)
		if err != nil {
			return storage.Record{}, err
		}
		r, err := c.records.GetRecord(ctx, id)
		if err != nil {
			return storage.Record{}, err
		}
		if err := checkReady(&r); err != nil {
			return storage.Record{}, err
		}
		at := now().UTC()
		stray, left := strays(r, listed, at), working(r.Retired, at)
		switch foreign := r.Rotation != nil && r.Rotation.ID != ours; {
		case foreign && at.Sub(r.Rotation.Begun) < rotationDead:
			return r, nil // it ends what is to end
		case foreign:
			r.Rotation = &storage.Rotation{ID: ours, Begun: at}
		case len(stray) > 0:
			// And once more: one of them may have made another.
			if err := c.access.EndKeys(ctx, user, stray); err != nil {
				return storage.Record{}, err
			}
			continue
		case r.Rotation == nil && len(left) == len(r.Retired):
			return r, nil
		default:
			c.log.InfoContext(ctx, "old keys ended", slog.String("volume", string(id)), slog.Int("left", len(left)))
			r.Rotation, r.Retired = nil, left
		}
		if _, err = c.records.UpdateRecord(ctx, r); err != nil && !storage.Is(err, storage.Changed) {
			return storage.Record{}, err
		}
	}
	return storage.Record{}, storage.Errorf(storage.Busy, "volume %s: its user keeps making keys; try again", id)
}

// strays are the listed keys that should not work at that time.
func strays(r storage.Record, listed []string, at time.Time) []string {
	keep := []string{r.Keys.Access}
	for _, k := range working(r.Retired, at) {
		keep = append(keep, k.Access)
	}
	return slices.DeleteFunc(slices.Clone(listed), func(k string) bool { return slices.Contains(keep, k) })
}
