package driver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the controller's side of inline volumes (inline.go): it makes what nodes
// have asked for, and deletes what they have given up, or what is of a pod that is gone.
// Every controller does it: two that meet at one volume are told apart by the conditions
// on its record, as two CreateVolumes are.

const (
	// inlineEvery is how often they are looked for. A pod waits for it.
	inlineEvery = time.Second
	// inlineAtOnce bounds those under way, inlineTime each of them.
	inlineAtOnce = 8
	inlineTime   = time.Minute
	// inlinePrefix begins the ids that the kubelet gives, so that not all volumes are
	// read each second. What has another is found with the next look at all.
	inlinePrefix = "csi-"
	// inlinePage is the first page: most of it is of others, where there are no inline
	// volumes.
	inlinePage = 16
)

// runInline looks until ctx ends, and waits for what is under way.
func (c *Controller) runInline(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	slots := make(chan struct{}, inlineAtOnce)
	tick := time.NewTicker(inlineEvery)
	defer tick.Stop()
	start := func(do func()) {
		select {
		case slots <- struct{}{}:
			work.Go(func() {
				defer func() { <-slots }()
				do()
			})
		default: // later
		}
	}
	for round := 0; ; round++ {
		c.tendInline(ctx, start)
		if round%int(staticEvery/inlineEvery) == 0 {
			c.tendStatic(ctx, start)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tendInline begins, by start, what each inline volume needs.
func (c *Controller) tendInline(ctx context.Context, start func(do func())) {
	after, limit := storage.VolumeID(inlinePrefix), inlinePage
	for {
		page, err := c.records.ListRecords(ctx, after, limit)
		if err != nil {
			if !errors.Is(ctx.Err(), context.Canceled) {
				c.log.DebugContext(ctx, "inline volumes not looked at", slog.Any("err", err))
			}
			return
		}
		for _, r := range page {
			if !strings.HasPrefix(string(r.ID), inlinePrefix) {
				return
			}
			after = r.ID
			c.tendOne(ctx, r, start)
		}
		if len(page) < limit {
			return
		}
		limit = min(2*limit, pageSize)
	}
}

// tendOne begins what one volume needs, if it is an inline one and needs anything.
func (c *Controller) tendOne(ctx context.Context, r storage.Record, start func(do func())) {
	var what string
	var do func(context.Context, storage.VolumeID) error
	switch {
	case r.Static != nil:
		what, do = c.staticNeeds(&r)
	case r.Inline == nil:
		return
	case r.Phase == storage.Deleting, !r.Inline.PodGone.IsZero():
		if len(c.seen.Live(&r)) > 0 {
			return // the node is there, whatever became of the pod
		}
		what, do = "delete the inline volume", c.delete
	case r.Phase == storage.Creating:
		what, do = "make the inline volume", c.makeInline
	}
	if do == nil {
		return
	}
	start(func() {
		ctx, cancel := context.WithTimeout(ctx, inlineTime)
		defer cancel()
		err := c.pending.do(ctx, r.ID, what, func() error { return do(ctx, r.ID) })
		if err == nil || storage.Is(err, storage.Busy) || storage.Is(err, storage.NotFound) || storage.Is(err, storage.Changed) || errors.Is(ctx.Err(), context.Canceled) {
			return // done, or by somebody else
		}
		c.log.WarnContext(ctx, "a volume that a node asks for, or has given up, is not as it should be yet", slog.String("op", what), slog.String("volume", string(r.ID)),
			slog.String("kind", storage.KindOf(err).String()), slog.Any("err", err))
	})
}

// makeInline makes what belongs to the record that a node has written.
func (c *Controller) makeInline(ctx context.Context, id storage.VolumeID) error {
	r, err := c.records.GetRecord(ctx, id)
	if err != nil || r.Phase != storage.Creating {
		return err
	}
	s, err := parseParams(r.Parameters)
	if err != nil {
		return storage.Errorf(storage.Corrupt, "record of volume %s: %w", id, err)
	}
	_, err = c.complete(ctx, r, s)
	return err
}
