package driver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestLeaseLivesWhileMounted: renewed for as long as the node runs, over minutes,
// and over some time after it stops.
func TestLeaseLivesWhileMounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t, writer)
		must(t, b.stage(t, b.node, "staging", writer))
		other := b.otherNode(t, "node-2", newFakeMounter())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.node.Run(ctx) }()
		for range 10 {
			pass(31 * time.Second)
			wantKind(t, "another node, while the lease lives", b.stage(t, other, "staging2", writer), storage.InUse)
		}
		stop()
		if err := <-done; !storage.IsContext(err) {
			t.Errorf("Run = %v", err)
		}
		wantKind(t, "another node, right after the first fell silent", b.stage(t, other, "staging2", writer), storage.InUse)
		pass(69 * time.Second)
		wantKind(t, "another node, before the last commits are over", b.stage(t, other, "staging2", writer), storage.InUse)
		pass(2 * time.Second)
		must(t, b.stage(t, other, "staging2", writer))

		// The first node comes back: the volume is another's now.
		b.node.renewAll(t.Context())
		if got := b.holder(t); got != "node-2" {
			t.Errorf("holder = %q", got)
		}
		wantKind(t, "the first node, mounted", b.stage(t, b.node, "staging", writer), storage.InUse)
	})
}

// TestTakeoverRaisesTheEpoch: by it the mounter of the node before knows that it
// has lost the volume, and the next one that what it finds is from before.
func TestTakeoverRaisesTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t, writer)
		m2 := newFakeMounter()
		other := b.otherNode(t, "node-2", m2)
		must(t, b.stage(t, b.node, "staging", writer))
		wantKind(t, "at once", b.stage(t, other, "staging2", writer), storage.InUse)
		pass(time.Hour)
		must(t, b.stage(t, other, "staging2", writer))
		if got := m2.mu.configs[0].Epoch; got != 2 {
			t.Errorf("epoch of the second owner = %d, want 2", got)
		}
		// Nobody has it, and the node before was away all the time: its mount stays
		// fenced until it is made anew.
		_, err := other.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging2")})
		must(t, err)
		err = b.stage(t, b.node, "staging", writer)
		wantKind(t, "the node before", err, storage.InUse)
		if err != nil && !strings.Contains(err.Error(), "unstage it") {
			t.Errorf("%v does not say what to do", err)
		}
		b.node.renewAll(t.Context())
		if got := b.holder(t); got != "" {
			t.Errorf("holder = %q", got)
		}
		must(t, b.unstage(t, "staging"))
		must(t, b.stage(t, b.node, "staging", writer))
		if got := b.mounter.mu.configs; got[len(got)-1].Epoch != 3 {
			t.Errorf("configs = %+v, want epoch 3", got)
		}
		// The same owner again: what it has not committed yet is of its epoch.
		must(t, b.unstage(t, "staging"))
		must(t, b.stage(t, b.node, "staging", writer))
		if got := b.mounter.mu.configs; got[len(got)-1].Epoch != 3 {
			t.Errorf("configs = %+v, want epoch 3 again", got)
		}
	})
}

// TestRestartedNodeKeepsItsEpoch: also when its lease ended meanwhile and nobody
// took it, and when the mount is gone.
func TestRestartedNodeKeepsItsEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t, writer)
		must(t, b.stage(t, b.node, "staging", writer))
		pass(time.Hour)
		b.node = b.otherNode(t, "node-1", b.mounter)
		must(t, b.stage(t, b.node, "staging", writer))
		b.node.renewAll(t.Context())
		b.mounter = newFakeMounter()
		b.node = b.otherNode(t, "node-1", b.mounter)
		must(t, b.stage(t, b.node, "staging", writer))
		if got := b.mounter.mu.configs[0].Epoch; got != 1 {
			t.Errorf("epoch = %d, want 1", got)
		}
	})
}

// TestClocksOfNodesDiffer: by a minute and by a day, in both directions, neither is
// a living lease over nor does an ended one last.
func TestClocksOfNodesDiffer(t *testing.T) {
	for _, off := range []time.Duration{-24 * time.Hour, -time.Minute, time.Minute, 24 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.create(t, writer)
				b.node = b.nodeWithClock(t, "node-1", b.mounter, func() time.Time { return time.Now().Add(off) })
				other := b.otherNode(t, "node-2", newFakeMounter())
				must(t, b.stage(t, b.node, "staging", writer))
				for range 10 {
					wantKind(t, "while it is renewed", b.stage(t, other, "staging2", writer), storage.InUse)
					pass(30 * time.Second)
					b.node.renewAll(t.Context())
				}
				err := b.stage(t, other, "staging2", writer)
				wantKind(t, "after the last renewal", err, storage.InUse)
				until := time.Now().Add(70 * time.Second).UTC().Format(time.RFC3339)
				if err != nil && (!strings.Contains(err.Error(), "node-1") || !strings.Contains(err.Error(), until)) {
					t.Errorf("%v does not name node-1 and %s", err, until)
				}
				pass(71 * time.Second)
				must(t, b.stage(t, other, "staging2", writer))
			})
		})
	}
}

// TestDeletionWaitsForLeases: of a node that is gone as long as a taker does.
func TestDeletionWaitsForLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t)
		must(t, b.stage(t, b.node, "staging", everyone))
		remove := func() error {
			_, err := b.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
			return err
		}
		for range 5 {
			wantKind(t, "while it is renewed", remove(), storage.InUse)
			pass(30 * time.Second)
			b.node.renewAll(t.Context())
		}
		err := remove()
		wantKind(t, "after the last renewal", err, storage.InUse)
		if err != nil && !strings.Contains(err.Error(), "node-1") {
			t.Errorf("%v does not name the node", err)
		}
		pass(69 * time.Second)
		wantKind(t, "a second before the end", remove(), storage.InUse)
		pass(2 * time.Second)
		must(t, remove())
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
	if after.Leases["node-1"].Renewal != before.Leases["node-1"].Renewal+1 || after.Capacity != before.Capacity+3 {
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

// TestOldLeasesAreForgotten: of nodes that never came back, in a volume of many.
func TestOldLeasesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t)
		lease(t, b.store, "gone")
		must(t, b.stage(t, b.node, "staging", everyone))
		pass(30 * time.Minute)
		b.node.renewAll(t.Context())
		lease(t, b.store, "late")
		b.node.renewAll(t.Context())
		pass(31 * time.Minute)
		b.node.renewAll(t.Context())
		if got := b.holder(t); got != "late node-1" {
			t.Errorf("leases of %q", got)
		}
	})
}

// TestUnstageWaitsForWhatIsLeft: a volume is not given back while something of it waits
// on this node.
func TestUnstageWaitsForWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t, writer)
		must(t, b.stage(t, b.node, "staging", writer))
		b.mounter.fail["Settle"] = storage.Errorf(storage.Unavailable, "no mounter is there")
		wantKind(t, "unstage", b.unstage(t, "staging"), storage.Unavailable)
		if got := b.holder(t); got == "" {
			t.Error("the lease was given back")
		}
		delete(b.mounter.fail, "Settle")
		must(t, b.unstage(t, "staging"))
		if got := b.holder(t); got != "" {
			t.Errorf("holder = %q", got)
		}
	})
}
