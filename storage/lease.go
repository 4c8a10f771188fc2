package storage

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// A lease is a node's word that it uses a volume. It ends by itself when the node
// stops renewing it, and nobody compares clocks of two machines to find that out:
// whoever waits for the end of a lease looks at the number of its renewals, and
// takes it for over when that has stood still for the lease's length, and the
// time that a commit may take, by a clock of its own that nobody sets. The holder
// counts from before it sent its last renewal. So the lease of a holder that renews
// is never taken for over, whatever their clocks say; only that all clocks run at
// about the same speed is relied on.
//
// Time stamps in the lease were the design that lost: they are off by what the
// clocks of two nodes differ, and a clock that is set while the node runs makes a
// living lease an ended one. The filer's clock lost too: there can be several
// filers, and it can be set. The price of this one: a lease that ended long ago
// is over only some time after the first look at it.

const (
	// LeaseFor is how long a node that fell silent keeps its volumes from others.
	// A filer that is stopped in order is away for 16 seconds, so that a renewal in
	// each third of it outlives that; and Kubernetes gives a node up after minutes
	// anyway.
	LeaseFor = 60 * time.Second
	// LeaseGrace is for what was sent at the end of a lease: the mounter gives it up
	// by then, and the next owner begins after it.
	LeaseGrace = 10 * time.Second
	// MaxLeaseFor bounds what a record may claim.
	MaxLeaseFor = time.Hour
)

// Lease is a node's word that it uses a volume.
type Lease struct {
	// Epoch is the record's when the lease was given.
	Epoch uint64 `json:"epoch,omitempty"`
	// Renewal is one more after each renewal.
	Renewal uint64 `json:"renewal,omitempty"`
	// For is how long it lives from its last renewal, Grace how long what the
	// holder began at its end may take. LeaseFor and LeaseGrace when zero.
	For   time.Duration `json:"for,omitempty"`
	Grace time.Duration `json:"grace,omitempty"`
	// Since and Until are by the holder's clock, for people: nothing is decided by
	// them.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Path is where the volume is staged on that node.
	Path string `json:"path,omitempty"`
	// Leaving: the node is unstaging the volume, which takes it long. The lease holds all
	// the same; whoever wants the volume may wait for it.
	Leaving bool `json:"leaving,omitempty"`
}

// check says whether the lease can be one.
func (l Lease) check() error {
	if l.For < 0 || l.For > MaxLeaseFor || l.Grace < 0 || l.Grace > MaxLeaseFor {
		return Errorf(Corrupt, "lease for %v and %v: 0 to %v are possible", l.For, l.Grace, MaxLeaseFor)
	}
	return nil
}

// Length is how long the lease lives from its last renewal.
func (l Lease) Length() time.Duration { return cmp.Or(l.For, LeaseFor) }

// Rest is how long after its end what the holder began before may take.
func (l Lease) Rest() time.Duration { return cmp.Or(l.Grace, LeaseGrace) }

// over is how long a lease must stand still until others may begin.
func (l Lease) over() time.Duration { return l.Length() + l.Rest() }

// Grant gives node a new lease. l has its length, its grace and its path; at is the
// node's clock. With each new owner a volume of one node enters a new epoch. One
// that returns to its last owner stays in it: what that one has not committed yet,
// since it died, belongs there.
func (r *Record) Grant(node string, l Lease, at time.Time) {
	if r.Access == Single && r.Owner != node {
		r.Epoch++
		r.Owner = node
	}
	l.Epoch, l.Renewal, l.Since = r.Epoch, 0, at.UTC()
	r.setLease(node, l)
	_ = r.Renew(node, l.Epoch, at)
}

// Renew renews the lease that node was given under an epoch: Stale when it has
// it no more, or the volume is being deleted.
func (r *Record) Renew(node string, epoch uint64, at time.Time) error {
	if r.Phase == Deleting {
		return Errorf(Stale, "volume %s is being deleted", r.ID)
	}
	l, ok := r.Leases[node]
	if !ok || l.Epoch != epoch {
		return Errorf(Stale, "volume %s: node %s has lost the lease of epoch %d; the volume is at epoch %d now", r.ID, node, epoch, r.Epoch)
	}
	l.Renewal++
	l.Until = at.UTC().Add(l.Length())
	r.setLease(node, l)
	return nil
}

// Leave says in the lease of a node whether that node is giving it back.
func (r *Record) Leave(node string, leaving bool) {
	if l, ok := r.Leases[node]; ok {
		l.Leaving = leaving
		r.setLease(node, l)
	}
}

// setLease never changes a map that a copy of the record may share.
func (r *Record) setLease(node string, l Lease) {
	r.Leases = maps.Clone(r.Leases)
	if r.Leases == nil {
		r.Leases = map[string]Lease{}
	}
	r.Leases[node] = l
}

// Return ends a lease.
func (r *Record) Return(node string) {
	r.Leases = maps.Clone(r.Leases)
	delete(r.Leases, node)
}

// Nodes lists those that have a lease, in order. One that died is among them
// until somebody takes it for over: see Sightings.
func (r *Record) Nodes() []string { return slices.Sorted(maps.Keys(r.Leases)) }

// Sightings is what one process has seen of leases: since when, by its own clock,
// each has not been renewed. The zero value has seen none.
type Sightings struct {
	mu struct {
		sync.Mutex
		seen map[VolumeID]map[string]sighting
	}
}

type sighting struct {
	lease Lease
	first time.Time // with a monotonic reading
}

// renewed reports whether a lease is another one by now, or was renewed.
func (x sighting) renewed(l Lease) bool {
	return x.lease.Epoch != l.Epoch || x.lease.Renewal != l.Renewal || !x.lease.Since.Equal(l.Since)
}

// Left looks at a record that was just read, and returns how long the lease of a
// node has to be honoured from now on, unless it is renewed; 0 when it is over or
// there is none. Somebody else may have renewed it since the reading, so what is
// done on the strength of it carries the record's condition.
func (s *Sightings) Left(r *Record, node string) time.Duration {
	l, ok := r.Leases[node]
	if !ok {
		return 0
	}
	since := s.see(r)[node]
	return max(0, l.over()-time.Since(since))
}

// Live lists the nodes whose lease has to be honoured.
func (s *Sightings) Live(r *Record) []string {
	since := s.see(r)
	return slices.DeleteFunc(r.Nodes(), func(node string) bool {
		return time.Since(since[node]) >= r.Leases[node].over()
	})
}

// Still lists the nodes whose lease has not been renewed for so long.
func (s *Sightings) Still(r *Record, long time.Duration) []string {
	since := s.see(r)
	return slices.DeleteFunc(r.Nodes(), func(node string) bool { return time.Since(since[node]) < long })
}

// see remembers what is new, forgets what is gone, and returns since when each
// lease stands still.
func (s *Sightings) see(r *Record) map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, now, since := s.mu.seen[r.ID], map[string]sighting{}, map[string]time.Time{}
	for node, l := range r.Leases {
		first := time.Now()
		if x, ok := was[node]; ok && !x.renewed(l) {
			first = x.first
		}
		now[node] = sighting{l, first}
		since[node] = first
	}
	if s.mu.seen == nil {
		s.mu.seen = map[VolumeID]map[string]sighting{}
	}
	s.mu.seen[r.ID] = now
	if len(now) == 0 {
		delete(s.mu.seen, r.ID)
	}
	return since
}
