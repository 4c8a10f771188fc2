package fuse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// What becomes of a writer for whom there is no room, as far as is known: the size
// is read again, since the volume may have been expanded just now, and what is not
// known is waited for. Only then it is refused.

const (
	// firstSurvey is how long the first survey of a volume is waited for before the
	// store's own figure is taken: most are done in some milliseconds.
	firstSurvey = time.Second
	// sizeTTL is how long the size of the volume is shown again.
	sizeTTL = 2 * time.Second
	// fullEvery is how often it is logged that the volume is full.
	fullEvery = time.Minute
)

// errVolumeFull is logged now and then, and not for each writer that tries again.
var errVolumeFull = errors.New("the volume is full")

// noRoom is what a change of a stage gets for which there is no room: how many
// bytes it needs.
type noRoom struct{ need int64 }

// Error implements error.
func (n noRoom) Error() string { return fmt.Sprintf("no room for %d bytes", n.need) }

// fitting carries out change, which returns noRoom when it does not fit: again when
// there is room after all, and at last with some, for the part that does fit. The
// caller holds the turn.
func (fs *FS) fitting(ctx context.Context, change func(some bool) error) error {
	for {
		err := change(false)
		missing, full := errors.AsType[noRoom](err)
		if !full {
			return err
		}
		err = fs.makeRoom(ctx, missing.need)
		if storage.Is(err, storage.Full) {
			someErr := change(true)
			if _, full := errors.AsType[noRoom](someErr); full {
				return err
			}
			return someErr
		}
		if err != nil {
			return err
		}
	}
}

// roomFor returns an error when there is no room for all of d to be written.
func (fs *FS) roomFor(ctx context.Context, n *node, d span) error {
	return fs.fitting(ctx, func(bool) error {
		if need := n.missing(d); !fs.room.fits(need) {
			return noRoom{need}
		}
		return nil
	})
}

// makeRoom returns when there is room for n bytes, or why there is none.
func (fs *FS) makeRoom(ctx context.Context, n int64) error {
	if err := fs.measured(ctx); err != nil {
		return err
	}
	sizeErr := fs.readSize(ctx)
	if fs.room.fits(n) {
		return nil
	}
	// What the mounter before has staged counts as new until its entry is known.
	for _, m := range fs.table.all() {
		if m.loaded.Load() || !m.dirty() {
			continue
		}
		if err := fs.load(ctx, m); err != nil && !storage.Is(err, storage.Stale) {
			return err
		}
	}
	if _, b, _ := fs.room.usage(); b == assumed && !fs.room.fits(n) {
		// The store's figure has what is deleted in it.
		select {
		case <-fs.room.known:
		case <-ctx.Done():
			return storage.Errorf(storage.Unavailable, "what the volume takes is not known yet: %w", ctx.Err())
		}
	}
	if fs.room.fits(n) {
		return nil
	}
	u, _, at := fs.room.usage()
	if at.IsZero() {
		return storage.Errorf(storage.Unavailable, "the size of the volume is not known: %w", sizeErr)
	}
	fs.tellFull(u)
	return storage.Errorf(storage.Full, "%w: it has %d bytes, %d are taken, %d more are needed", errVolumeFull, u.Capacity, u.Used, n)
}

// measured returns when there is a figure for what the volume takes.
func (fs *FS) measured(ctx context.Context) error {
	if _, b, _ := fs.room.usage(); b != guess {
		return nil
	}
	timer := time.NewTimer(firstSurvey)
	defer timer.Stop()
	select {
	case <-fs.room.known:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	u, err := fs.vol.Meter.Usage(ctx)
	if err != nil {
		return err
	}
	fs.room.assume(u.Used)
	return nil
}

// readSize learns the size of the volume from its record.
func (fs *FS) readSize(ctx context.Context) error {
	size, err := fs.vol.Meter.Size(ctx)
	if err == nil {
		fs.room.setSize(size)
	}
	return err
}

// tellFull logs that the volume is full, now and then.
func (fs *FS) tellFull(u storage.Usage) {
	last, now := fs.toldFull.Load(), time.Now().UnixNano()
	if now-last < int64(fullEvery) || !fs.toldFull.CompareAndSwap(last, now) {
		return
	}
	fs.log.Warn("the volume is full", "op", "write", "size", u.Capacity, "used", u.Used)
}
