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

// This file has a call that stages a volume of one node wait while another node is about
// to lose it, so that it goes on in the second in which it may. A refusal alone was the
// design that lost: the kubelet doubles its delay after each one, up to two minutes, and a
// volume that could be had after 70 seconds moved after 150.
//
// About to lose it is a node whose lease has missed a renewal, or that says that it is
// unstaging the volume. One that renews is named at once, and so is any other by the first
// call: the kubelet tells an event from the refusal, and people shall read who is waited
// for.

const (
	// lookEvery is how often the record is read while a call waits.
	lookEvery = time.Second
	// mountingTakes is what a call keeps of its caller's time for the mount.
	mountingTakes = 15 * time.Second
	// waitAtMost bounds a call whose caller sets no deadline: the kubelet's own.
	waitAtMost = 2 * time.Minute
	// announceAfter is how long an unstaging takes before others are told of it. Most are
	// over by then, and two more calls of the store would be half of what they cost.
	announceAfter = time.Second
)

// await returns the record as it is when there is nothing to wait for any more: nobody
// else has the volume, or who has it keeps it, or the time is up. It decides nothing.
func (n *Node) await(ctx context.Context, r storage.Record) (storage.Record, error) {
	last := time.Now().Add(waitAtMost)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(last) {
		last = deadline
	}
	last = last.Add(-mountingTakes)
	begun, waited := time.Now(), ""
	for {
		holders, pause := n.leaving(&r, time.Until(last))
		if !n.named.before(r.ID, holders) || pause <= 0 {
			break
		}
		waited = holders
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(pause):
		}
		var err error
		if r, err = n.records.GetRecord(ctx, r.ID); err != nil {
			return r, err
		}
		if err := checkReady(&r); err != nil {
			return r, err
		}
	}
	if waited != "" {
		n.log.InfoContext(ctx, "waited for a node that is about to lose a volume", slog.String("volume", string(r.ID)), slog.String("holder", waited), slog.Duration("dur", time.Since(begun)))
	}
	return r, nil
}

// leaving names the other nodes that have a volume of one node, and says how long to wait
// until the next look: 0 when one of them will keep it for longer than within.
func (n *Node) leaving(r *storage.Record, within time.Duration) (holders string, pause time.Duration) {
	if r.Access != storage.Single {
		return "", 0
	}
	var names []string
	keeps := within <= 0
	for _, node := range r.Nodes() {
		if node == n.o.NodeID {
			continue
		}
		left, l := n.seen.Left(r, node), r.Leases[node]
		if left == 0 {
			continue
		}
		names = append(names, node)
		if missed := l.Length()+l.Rest()-left >= l.Length()/2; !l.Leaving && (!missed || left > within) {
			keeps = true
		}
		if pause == 0 || left < pause {
			pause = left
		}
	}
	if keeps {
		return strings.Join(names, " "), 0
	}
	return strings.Join(names, " "), min(pause, within, lookEvery)
}

// named are the holders that this node's callers have been told of, by volume. What is
// refused here and never asked for again stays in it: a name.
type named struct {
	mu struct {
		sync.Mutex
		of map[storage.VolumeID]string
	}
}

// before reports whether the holders were named by an earlier call, and notes them.
func (x *named) before(id storage.VolumeID, holders string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if holders == "" {
		delete(x.mu.of, id)
		return false
	}
	if x.mu.of[id] == holders {
		return true
	}
	if x.mu.of == nil {
		x.mu.of = map[storage.VolumeID]string{}
	}
	x.mu.of[id] = holders
	return false
}

// announced runs the unstaging of a volume, and says in the lease that it is under way
// when it takes long: whoever waits for the volume then waits for this.
func (n *Node) announced(ctx context.Context, id storage.VolumeID, unstage func() error) error {
	saying, quiet := context.WithCancel(ctx)
	said := false
	var done sync.WaitGroup
	done.Go(func() {
		select {
		case <-saying.Done():
		case <-time.After(announceAfter):
			said = true
			n.setLeaving(saying, id, true)
		}
	})
	err := unstage()
	quiet()
	done.Wait()
	if err != nil && said {
		n.setLeaving(ctx, id, false) // what fails here, the next renewal does
	}
	return err
}

// errUnchanged keeps a record from being written as it is.
var errUnchanged = errors.New("nothing to change")

// setLeaving changes this node's lease. That it may fail costs others a refusal more.
func (n *Node) setLeaving(ctx context.Context, id storage.VolumeID, leaving bool) {
	_, err := updateRecord(ctx, n.records, id, func(r *storage.Record) error {
		l, ours := r.Leases[n.o.NodeID]
		if r.Access != storage.Single || !ours || l.Leaving == leaving {
			return errUnchanged
		}
		r.Leave(n.o.NodeID, leaving)
		return nil
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, errUnchanged) && !storage.Is(err, storage.NotFound) {
		n.log.WarnContext(ctx, "an unstaging was not announced", slog.String("volume", string(id)), slog.Any("err", err))
	}
}
