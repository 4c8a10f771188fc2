package fuse

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// A file that loses its last name while it is open here is held in the store
// until its last close. When it never comes, since the session or the whole node
// has died, who mounts the volume next frees it.

// holderMark parts the node from the rest of a holder's name: a node that has
// lost its disk is another holder.
const holderMark = "."

// deadEvery is how often the dead are looked for: a node that died with this one
// mounted counts as alive until its lease is over.
const deadEvery = 10 * time.Minute

func newHolder(node string) string { return url.PathEscape(node) + holderMark + rand.Text() }

// sweepHeld does both of what follows, and returns when it is to be done again.
func (fs *FS) sweepHeld(ctx context.Context) time.Time {
	err := fs.settled(ctx)
	if err == nil {
		err = fs.sweepOrphans(ctx)
	}
	if err == nil {
		err = fs.sweepDead(ctx)
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return time.Now().Add(deadEvery)
	case !storage.Is(err, storage.Unavailable) && !storage.IsContext(err):
		fs.log.Warn("content without a name may stay", "op", "orphans", "err", err)
		return time.Now().Add(deadEvery)
	}
	return time.Now()
}

// sweepOrphans frees the content that was held for handles of a session that is
// over: what this mount holds and no node is known for.
func (fs *FS) sweepOrphans(ctx context.Context) error {
	return fs.freeHeld(ctx, fs.holder, func(o storage.Orphan) bool { return fs.table.get(o.ID) == nil })
}

// sweepDead frees what nodes hold that are dead, and what this one held before it
// lost its disk. The holders are listed first and the nodes asked for then: a
// node that holds anything had its lease before.
func (fs *FS) sweepDead(ctx context.Context) error {
	if fs.opts.Live == nil || fs.opts.ReadOnly {
		return nil
	}
	holders, err := fs.vol.Orphans.Holders(ctx)
	if err != nil {
		return err
	}
	live, err := fs.opts.Live(ctx)
	if err != nil {
		return err
	}
	for _, h := range holders {
		at := strings.LastIndex(h, holderMark)
		if h == fs.holder || at <= 0 {
			continue
		}
		if node, err := url.PathUnescape(h[:at]); err != nil || node != fs.opts.Node && slices.Contains(live, node) {
			continue
		}
		if err := fs.freeHeld(ctx, h, func(storage.Orphan) bool { return true }); err != nil {
			return err
		}
	}
	return nil
}

func (fs *FS) freeHeld(ctx context.Context, holder string, dead func(storage.Orphan) bool) error {
	held, err := fs.vol.Orphans.Orphans(ctx, holder)
	if err != nil {
		return err
	}
	for _, o := range held {
		if !dead(o) {
			continue
		}
		if err := fs.vol.Orphans.FreeOrphan(ctx, o); err != nil {
			return err
		}
	}
	return nil
}
