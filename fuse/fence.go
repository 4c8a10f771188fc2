package fuse

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// A fence keeps a mounter from changing a volume that another node has taken
// meanwhile. It renews the lease in the volume's record itself, so that a node
// process that is away stops nobody, and asks the record again before a change
// when the lease is not known to live. So a change is sent only within a lease's
// length from the moment before its last renewal was sent, and given up a grace
// after that; the next owner waits for both (storage/lease.go).
//
// Having the node process tell the mounter was the design that lost: it is one
// more process that has to live, and one more path on which the word can be late.
//
// The risk accepted: a change that was sent in time can stand in the filer's queue
// when the next owner begins. Most carry a condition and fail then; a rename
// carries none.

const (
	// fenceRenewals are tried in each lease: two may fail before it ends.
	fenceRenewals = 3
	// fenceTries bounds how often a renewal is begun again because somebody else
	// has changed the record; the node process and the controller do now and then.
	fenceTries = 20
	// fencePause is the longest wait between two of them.
	fencePause = 50 * time.Millisecond
)

// FenceOptions say whose lease it is: of which volume, for which node, under which
// epoch.
type FenceOptions struct {
	Volume storage.VolumeID
	Node   string
	Epoch  uint64
	Logger *slog.Logger
	// Clock is for tests.
	Clock Clock
}

// Fence implements storage.Guard.
type Fence struct {
	records storage.Records
	o       FenceOptions

	// turn is held by whoever renews.
	turn chan struct{}
	// gone is closed when the volume is lost.
	gone chan struct{}

	mu struct {
		sync.Mutex
		// INVARIANT: the lease lives for at least length from since on.
		since         stamp
		length, grace time.Duration
		// lost is why nothing may be changed any more.
		lost error
	}
}

var _ storage.Guard = (*Fence)(nil)

// stamp is a moment by two clocks: the one stands still while the machine sleeps,
// where it has no CLOCK_BOOTTIME, or while a hypervisor has stopped it, and the
// other can be set. A lease lives when it does by both.
type stamp struct {
	boot time.Duration
	wall time.Time
}

// Clock reads both clocks.
type Clock func() (boot time.Duration, wall time.Time)

func systemClock() (time.Duration, time.Time) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, time.Now() // not on Linux
	}
	return time.Duration(ts.Nano()), time.Now().Round(0)
}

// NewFence makes a fence. Nothing is allowed before the record was asked.
func NewFence(records storage.Records, o FenceOptions) *Fence {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = systemClock
	}
	return &Fence{records: records, o: o, turn: make(chan struct{}, 1), gone: make(chan struct{})}
}

func (f *Fence) stamp() stamp {
	boot, wall := f.o.Clock()
	return stamp{boot, wall}
}

// left is how long the lease is known to live, and why it never will again.
func (f *Fence) left() (left, grace time.Duration, lost error) {
	now := f.stamp()
	f.mu.Lock()
	defer f.mu.Unlock()
	passed := max(now.boot-f.mu.since.boot, now.wall.Sub(f.mu.since.wall))
	return f.mu.length - passed, f.mu.grace, f.mu.lost
}

// Allow implements storage.Guard.
func (f *Fence) Allow(ctx context.Context) (time.Time, error) {
	for {
		left, grace, lost := f.left()
		switch {
		case lost != nil:
			return time.Time{}, lost
		case left > 0:
			return time.Now().Add(left + grace), nil
		}
		if err := f.renew(ctx, false); err != nil {
			return time.Time{}, err
		}
	}
}

// Lost returns why the volume must not be changed any more, or nil. It asks nobody.
func (f *Fence) Lost() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.lost
}

// epoch of the lease; zero when there is none.
func (f *Fence) epoch() uint64 {
	if f == nil {
		return 0
	}
	return f.o.Epoch
}

// renew renews the lease, or learns that it is lost. Unless always is set it does
// nothing when somebody else just did.
func (f *Fence) renew(ctx context.Context, always bool) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if left, _, lost := f.left(); lost != nil || left > 0 && !always {
		return lost
	}
	for range fenceTries {
		now := f.stamp() // before anything is sent
		r, err := f.records.GetRecord(ctx, f.o.Volume)
		if err == nil {
			err = r.Renew(f.o.Node, f.o.Epoch, now.wall)
		}
		if err == nil {
			r, err = f.records.UpdateRecord(ctx, r)
		}
		switch {
		case err == nil:
			f.alive(now, r.Leases[f.o.Node])
			return nil
		case storage.Is(err, storage.Changed):
		case storage.Is(err, storage.Stale), storage.Is(err, storage.NotFound):
			return f.lose(err)
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(fencePause)):
		}
	}
	return storage.Errorf(storage.Unavailable, "lease of volume %s: others changed its record %d times meanwhile", f.o.Volume, fenceTries)
}

func (f *Fence) alive(since stamp, l storage.Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.since = since
	f.mu.length, f.mu.grace = l.Length(), l.Rest()
}

// lose remembers that it is over. It is told once.
func (f *Fence) lose(why error) error {
	err := storage.Errorf(storage.Stale, "this node has lost the volume, and changes nothing in it any more: %w", why)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.lost == nil {
		f.mu.lost = err
		close(f.gone)
	}
	return f.mu.lost
}

// keep renews the lease until ctx ends or the volume is lost.
func (f *Fence) keep(ctx context.Context) error {
	every := storage.LeaseFor / fenceRenewals
	for {
		round, cancel := context.WithTimeout(ctx, every)
		err := f.renew(round, true)
		cancel()
		f.mu.Lock()
		every = cmp.Or(f.mu.length/fenceRenewals, every)
		f.mu.Unlock()
		if lost := f.Lost(); lost != nil {
			return lost
		}
		if err != nil && ctx.Err() == nil {
			f.o.Logger.Warn("lease not renewed", "op", "lease", "kind", storage.KindOf(err).String(), "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.gone:
			return f.Lost()
		case <-time.After(every):
		}
	}
}
