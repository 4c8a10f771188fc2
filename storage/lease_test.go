package storage

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func leased(nodes ...string) *Record {
	r := &Record{ID: "v", Access: Shared}
	for _, node := range nodes {
		r.Grant(node, Lease{}, time.Now())
	}
	return r
}

func TestLeaseIsOverWhenItStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sightings
		r := leased("a", "b")
		if left := s.Left(r, "a"); left != LeaseFor+LeaseGrace {
			t.Errorf("left at the first look: %v", left)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
		if left := s.Left(r, "a"); left != LeaseGrace {
			t.Errorf("left after a minute: %v", left)
		}
		if err := r.Renew("b", 0, time.Now()); err != nil {
			t.Fatal(err)
		}
		s.Left(r, "b")
		time.Sleep(LeaseGrace) //nolint:forbidigo // in a bubble
		if left, live := s.Left(r, "a"), s.Live(r); left != 0 || !slices.Equal(live, []string{"b"}) {
			t.Errorf("left %v, live %v; want 0 and [b]", left, live)
		}
		if left := s.Left(r, "nobody"); left != 0 {
			t.Errorf("left of no lease: %v", left)
		}
		// Given back and given anew, with the same number of renewals.
		r.Return("a")
		r.Grant("a", Lease{}, time.Now())
		if left := s.Left(r, "a"); left != LeaseFor+LeaseGrace {
			t.Errorf("left of a new lease: %v", left)
		}
	})
}

// A process that has just begun has seen nothing, and believes no time stamp.
func TestFirstLookIsNoEnd(t *testing.T) {
	r := &Record{ID: "v", Leases: map[string]Lease{"a": {Until: time.Now().Add(-24 * time.Hour)}}}
	var s Sightings
	if left := s.Left(r, "a"); left < LeaseFor {
		t.Errorf("a lease with an old time stamp is over in %v", left)
	}
}

func TestSightingsKeepTheirOwnLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sightings
		r := &Record{ID: "v", Access: Single}
		r.Grant("a", Lease{For: 6 * time.Second, Grace: time.Second}, time.Now())
		if left := s.Left(r, "a"); left != 7*time.Second {
			t.Errorf("left %v", left)
		}
	})
}

func TestEpochs(t *testing.T) {
	r := &Record{ID: "v", Access: Single}
	for _, step := range []struct {
		node string
		want uint64
	}{{"a", 1}, {"a", 1}, {"b", 2}, {"a", 3}} {
		r.Grant(step.node, Lease{}, time.Now())
		if got := r.Leases[step.node].Epoch; got != step.want || r.Epoch != step.want {
			t.Errorf("%s: epoch %d of %d, want %d", step.node, got, r.Epoch, step.want)
		}
		r.Return(step.node)
		if err := r.Renew(step.node, step.want, time.Now()); !Is(err, Stale) {
			t.Errorf("renewal of what was given back: %v", err)
		}
	}
	r.Grant("a", Lease{}, time.Now())
	if err := r.Renew("a", 1, time.Now()); !Is(err, Stale) {
		t.Errorf("renewal under an old epoch: %v", err)
	}
}

func TestGrantSharesNoMap(t *testing.T) {
	a := leased("a")
	b := *a
	b.Grant("b", Lease{}, time.Now())
	b.Return("a")
	if len(a.Leases) != 1 {
		t.Errorf("leases = %v", a.Leases)
	}
}
