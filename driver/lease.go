package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file keeps the leases of this node's volumes. A lease keeps others from
// deleting a volume, and a volume of one node from being staged on another. Clocks
// of nodes must agree to well below its length.

const (
	// renewers bounds the renewals under way.
	renewers = 8
	// forgetAfter is when the lease of a node that never came back is dropped from
	// a record, so that records do not grow for ever.
	forgetAfter = time.Hour
)

// usableBy says whether a node may have the volume.
func usableBy(r *storage.Record, node string) error {
	switch r.Phase {
	case storage.Ready:
	case storage.Deleting:
		return storage.Errorf(storage.InUse, "volume %s is being deleted", r.ID)
	default:
		return storage.Errorf(storage.Busy, "volume %s is still being created; try again", r.ID)
	}
	if r.Access != storage.Single {
		return nil
	}
	others := *r
	others.Leases = map[string]storage.Lease{}
	for name, l := range r.Leases {
		if name != node {
			others.Leases[name] = l
		}
	}
	if holder := others.Holder(now()); holder != "" {
		return storage.Errorf(storage.InUse, "volume %s is in use on node %s and can be on one node at a time", r.ID, holder)
	}
	return nil
}

// takeLease takes or renews this node's lease.
func (n *Node) takeLease(ctx context.Context, id storage.VolumeID, path string) (storage.Record, error) {
	return updateRecord(ctx, n.records, id, func(r *storage.Record) error {
		if err := usableBy(r, n.o.NodeID); err != nil {
			return err
		}
		at := now().UTC()
		if r.Leases == nil {
			r.Leases = map[string]storage.Lease{}
		}
		for node, l := range r.Leases {
			if at.Sub(l.Until) > forgetAfter {
				delete(r.Leases, node)
			}
		}
		r.Leases[n.o.NodeID] = storage.Lease{Until: at.Add(n.o.LeaseFor), Path: path}
		return nil
	})
}

// giveLeaseBack ends this node's lease at once.
func (n *Node) giveLeaseBack(ctx context.Context, id storage.VolumeID) error {
	if _, err := checkVolumeID(string(id)); err != nil {
		return nil //nolint:nilerr // such a volume has no record
	}
	r, err := n.records.GetRecord(ctx, id)
	if err == nil {
		if _, ours := r.Leases[n.o.NodeID]; !ours {
			return nil
		}
		_, err = updateRecord(ctx, n.records, id, func(r *storage.Record) error {
			delete(r.Leases, n.o.NodeID)
			return nil
		})
	}
	if storage.Is(err, storage.NotFound) {
		return nil
	}
	return err
}

// Run renews the leases of what is mounted until ctx ends, at once at first: a
// node that comes back has no time to lose.
func (n *Node) Run(ctx context.Context) error {
	tick := time.NewTicker(n.o.RenewEvery)
	defer tick.Stop()
	for {
		n.renewAll(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// renewAll renews every lease once. It is bounded by the interval, so that one
// slow round does not make the next one late.
func (n *Node) renewAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.o.RenewEvery)
	defer cancel()
	all, err := n.mounts(ctx)
	if err != nil {
		n.notRenewed(ctx, "", fmt.Errorf("ask the mounter: %w", err))
		return
	}
	var round sync.WaitGroup
	slots := make(chan struct{}, renewers)
	for _, m := range all {
		select {
		case <-ctx.Done():
		case slots <- struct{}{}:
		}
		if ctx.Err() != nil {
			break
		}
		round.Go(func() {
			defer func() { <-slots }()
			// An operation on the volume takes care of the lease itself.
			n.pending.doQuietly(storage.VolumeID(m.ID), func() { n.renew(ctx, m.ID) })
		})
	}
	round.Wait()
}

// renew asks again what is mounted: the list may be from before an unstage, and a
// lease renewed after that would keep the volume from others for nothing.
func (n *Node) renew(ctx context.Context, id string) {
	all, err := n.mounts(ctx)
	if err != nil {
		n.notRenewed(ctx, id, fmt.Errorf("ask the mounter: %w", err))
		return
	}
	have := all.of(id)
	if have == nil {
		return
	}
	if _, err := n.takeLease(ctx, storage.VolumeID(id), have.Target); err != nil {
		n.notRenewed(ctx, id, err)
	}
}

// notRenewed tells it, unless we are about to end.
func (n *Node) notRenewed(ctx context.Context, id string, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	n.log.WarnContext(ctx, "lease not renewed", slog.String("volume", id), slog.String("kind", storage.KindOf(err).String()), slog.Any("err", err))
}
