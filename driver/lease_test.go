package driver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestLeaseLivesWhileMounted: renewed for as long as the node runs, over minutes,
// and over soon after it stops.
func TestLeaseLivesWhileMounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t, writer)
		must(t, b.stage(t, b.node, "staging", writer))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.node.Run(ctx) }()
		for range 10 {
			time.Sleep(31 * time.Second) //nolint:forbidigo // in a bubble
			if b.holder(t) != "node-1" {
				t.Fatal("the lease ended while the volume was mounted")
			}
		}
		stop()
		if err := <-done; !storage.IsContext(err) {
			t.Errorf("Run = %v", err)
		}
		time.Sleep(61 * time.Second) //nolint:forbidigo // in a bubble
		if b.holder(t) != "" {
			t.Error("the lease of a dead node lives")
		}
		other := b.otherNode(t, "node-2", newFakeMounter())
		must(t, b.stage(t, other, "staging2", writer))

		// The first node comes back: the volume is another's now.
		b.node.renewAll(t.Context())
		if got := b.holder(t); got != "node-2" {
			t.Errorf("holder = %q", got)
		}
	})
}

// TestRenewalSurvivesAMeeting: others change the record at the same time.
func TestRenewalSurvivesAMeeting(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	b.node.records = &meddler{Records: b.store, left: 3}
	before, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	b.node.renewAll(t.Context())
	after, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	if !after.Leases["node-1"].Until.After(before.Leases["node-1"].Until) || after.Capacity != before.Capacity+3 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

// meddler changes a record just before somebody else's update.
type meddler struct {
	storage.Records
	left int
}

func (m *meddler) UpdateRecord(ctx context.Context, r storage.Record) (storage.Record, error) {
	if m.left > 0 {
		m.left--
		have, err := m.GetRecord(ctx, r.ID)
		if err != nil {
			return storage.Record{}, err
		}
		have.Capacity++
		if _, err := m.Records.UpdateRecord(ctx, have); err != nil {
			return storage.Record{}, err
		}
	}
	return m.Records.UpdateRecord(ctx, r)
}

// TestNoRenewalAfterUnstage: the list of mounts may be old.
func TestNoRenewalAfterUnstage(t *testing.T) {
	b := newBench(t)
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	must(t, b.unstage(t, "staging"))
	b.node.renew(t.Context(), "photos")
	if got := b.holder(t); got != "" {
		t.Errorf("holder = %q", got)
	}
}

func TestOldLeasesAreForgotten(t *testing.T) {
	b := newBench(t)
	b.create(t)
	lease(t, b.store, "gone", time.Now().Add(-2*time.Hour))
	lease(t, b.store, "late", time.Now().Add(-time.Minute))
	must(t, b.stage(t, b.node, "staging", everyone))
	r, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	_, gone := r.Leases["gone"]
	_, late := r.Leases["late"]
	if gone || !late {
		t.Errorf("leases = %v", r.Leases)
	}
}
