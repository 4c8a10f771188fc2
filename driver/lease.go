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
// deleting a volume, and a volume of one node from being staged on another. When
// another node's lease is over is decided without clocks: storage/lease.go. That a
// node which lost a volume writes to it no more is the mounter's to see to: it renews
// the same lease, and asks it before each change (fuse/fence.go).

const (
	// renewers bounds the renewals under way.
	renewers = 8
	// forgetAfter is when the lease of a node that never came back is dropped from
	// a record, so that records do not grow for ever.
	forgetAfter = time.Hour
)

// evict ends the leases that are in the way of this node, or says whose is not
// over and when it will be.
func (n *Node) evict(r *storage.Record) error {
	if r.Access != storage.Single {
		return nil
	}
	for _, node := range r.Nodes() {
		if node == n.o.NodeID {
			continue
		}
		left := n.seen.Left(r, node)
		if left > 0 && r.Leases[node].Leaving {
			return storage.Errorf(storage.InUse, "volume %s is being unstaged on node %s, which brings to the cluster what it has of it, and can be on one node at a time; try again", r.ID, node)
		}
		if left > 0 {
			return storage.Errorf(storage.InUse, "volume %s is in use on node %s and can be on one node at a time; that ends when it is unstaged there (end or move what uses it on that node), or at %s (in %s) if the node does not renew its lease until then; in Kubernetes, mark a node that is switched off for good by the taint node.kubernetes.io/out-of-service",
				r.ID, node, time.Now().Add(left).UTC().Format(time.RFC3339), left.Round(time.Second))
		}
		r.Return(node)
	}
	return nil
}

// takeLease takes this node's lease, or renews it. A volume of one node that is
// mounted here and has no lease is another's, or was: what its mount holds must
// not be brought into the bucket any more.
func (n *Node) takeLease(ctx context.Context, id storage.VolumeID, path string, mounted bool, group *uint32) (storage.Record, error) {
	var before []string
	r, err := updateRecord(ctx, n.records, id, func(r *storage.Record) error {
		before = r.Nodes()
		if err := checkReady(r); err != nil {
			return err
		}
		have, ours := r.Leases[n.o.NodeID]
		if mounted && !ours && r.Access == storage.Single {
			return storage.Errorf(storage.InUse, "volume %s is mounted here, and this node has lost it: it fell silent, and the volume was given to another node or given up (epoch %d); unpublish and unstage it here, then it can be staged again", id, r.Epoch)
		}
		if err := n.evict(r); err != nil {
			return err
		}
		for _, node := range n.seen.Still(r, forgetAfter) {
			if node != n.o.NodeID {
				r.Return(node)
			}
		}
		if group != nil {
			r.MountedFor(*group)
		}
		if ours {
			have.Path, have.For, have.Grace, have.Leaving = path, n.o.LeaseFor, n.o.LeaseGrace, false
			r.Leases[n.o.NodeID] = have
			return r.Renew(n.o.NodeID, have.Epoch, n.o.Now())
		}
		r.Grant(n.o.NodeID, storage.Lease{For: n.o.LeaseFor, Grace: n.o.LeaseGrace, Path: path}, n.o.Now())
		return nil
	})
	for _, node := range before {
		if _, stays := r.Leases[node]; err == nil && !stays {
			n.log.WarnContext(ctx, "the lease of a node that fell silent is over and was ended", slog.String("volume", string(id)), slog.String("holder", node), slog.Uint64("epoch", r.Epoch))
		}
	}
	return r, err
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
			r.Return(n.o.NodeID)
			return nil
		})
	}
	if storage.Is(err, storage.NotFound) {
		return nil
	}
	return err
}

// Run renews the leases of what is mounted until ctx ends, at once at first: a
// node that comes back has no time to lose. It reports what is not well, too.
func (n *Node) Run(ctx context.Context) error {
	var reporter sync.WaitGroup
	defer reporter.Wait()
	if n.reports != nil {
		reporter.Go(func() { n.report(ctx) })
	}
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
	if _, err := n.takeLease(ctx, storage.VolumeID(id), have.Target, true, nil); err != nil {
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
