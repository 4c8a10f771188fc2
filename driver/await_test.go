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

// kubeletWaits is the deadline of the kubelet's calls.
const kubeletWaits = 2 * time.Minute

// held is a volume of one node that node-1 has, and node-2, which wants it.
func held(t *testing.T) (*bench, *Node) {
	t.Helper()
	b := newBench(t)
	b.create(t, writer)
	must(t, b.stage(t, b.node, "staging", writer))
	return b, b.otherNode(t, "node-2", newFakeMounter())
}

// tookOver says how long after begun the call staged the volume.
func (b *bench) tookOver(t *testing.T, n *Node) time.Duration {
	t.Helper()
	begun := time.Now()
	must(t, b.stageWithin(t, kubeletWaits, n, "staging2", writer))
	return time.Since(begun)
}

// TestStageWaitsForASilentNode: a kubelet that repeats the call with its growing delay has
// the volume in the second in which the lease is over, and was told who has it before.
func TestStageWaitsForASilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := held(t)
		begun, delay, refused := time.Now(), 500*time.Millisecond, 0
		for {
			err := b.stageWithin(t, kubeletWaits, other, "staging2", writer)
			if err == nil {
				break
			}
			wantKind(t, "the call", err, storage.InUse)
			if refused++; !strings.Contains(err.Error(), "node-1") {
				t.Errorf("%v does not name node-1", err)
			}
			pass(delay)
			delay *= 2
		}
		if took := time.Since(begun); took < 70*time.Second || took > 71*time.Second || refused == 0 {
			t.Errorf("moved after %s and %d refusals, want the 70 s of the lease", took, refused)
		}
	})
}

// TestStageNamesANodeThatRenews: at once, whenever it is asked; also when it renews while
// somebody waits.
func TestStageNamesANodeThatRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := held(t)
		refused := func(within time.Duration) {
			t.Helper()
			begun := time.Now()
			err := b.stageWithin(t, kubeletWaits, other, "staging2", writer)
			wantKind(t, "a node that renews", err, storage.InUse)
			if err != nil && !strings.Contains(err.Error(), "node-1") {
				t.Errorf("%v does not name node-1", err)
			}
			if took := time.Since(begun); took > within {
				t.Errorf("refused after %s", took)
			}
		}
		for range 40 {
			refused(0)
			pass(7 * time.Second)
			refused(0)
			pass(13 * time.Second)
			b.node.renewAll(t.Context())
		}
		refused(0)
		pass(40 * time.Second) // two renewals did not come through
		time.AfterFunc(5*time.Second, func() { b.node.renewAll(t.Context()) })
		refused(6 * time.Second)
	})
}

// TestStageDoesNotWaitInVain: when the caller will be gone before the lease is over, and
// when it goes while it waits.
func TestStageDoesNotWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := held(t)
		wantKind(t, "the first call", b.stageWithin(t, kubeletWaits, other, "staging2", writer), storage.InUse)
		pass(35 * time.Second)
		begun := time.Now()
		wantKind(t, "a call of 30 s", b.stageWithin(t, 30*time.Second, other, "staging2", writer), storage.InUse)
		if took := time.Since(begun); took > 0 {
			t.Errorf("refused after %s", took)
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, leave)
		_, err := other.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: b.path("staging2"), VolumeCapability: mountCap(writer)})
		if took := time.Since(begun); !storage.IsContext(err) || took != 3*time.Second {
			t.Errorf("a caller that left: %v after %s", err, took)
		}
	})
}

// TestStageWaitsForTheLeaseToBeEnded: by the companion, which has looked for longer.
func TestStageWaitsForTheLeaseToBeEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := held(t)
		wantKind(t, "the first call", b.stageWithin(t, kubeletWaits, other, "staging2", writer), storage.InUse)
		pass(31 * time.Second)
		time.AfterFunc(10*time.Second, func() {
			_, err := updateRecord(t.Context(), b.store, "photos", func(r *storage.Record) error {
				r.Return("node-1")
				return nil
			})
			must(t, err)
		})
		if took := b.tookOver(t, other); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("moved after %s, and the lease was ended after 10 s", took)
		}
	})
}

// slowToLeave is a mounter that has much to bring to the cluster.
type slowToLeave struct {
	*fakeMounter
	takes time.Duration
	err   error
}

func (s *slowToLeave) Settle(ctx context.Context, id string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
	}
	if s.err != nil {
		return s.err
	}
	return s.fakeMounter.Settle(ctx, id)
}

// TestStageWaitsForAnUnstaging: the second call goes on when the other node is done.
func TestStageWaitsForAnUnstaging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := held(t)
		b.node.mounter = &slowToLeave{fakeMounter: b.mounter, takes: 25 * time.Second}
		unstaged := make(chan error, 1)
		go func() { unstaged <- b.unstage(t, "staging") }()
		pass(2 * time.Second)
		err := b.stageWithin(t, kubeletWaits, other, "staging2", writer)
		wantKind(t, "the first call", err, storage.InUse)
		if err != nil && (!strings.Contains(err.Error(), "node-1") || !strings.Contains(err.Error(), "unstaged")) {
			t.Errorf("%v does not say that node-1 unstages it", err)
		}
		if took := b.tookOver(t, other); took < 22*time.Second || took > 24*time.Second {
			t.Errorf("moved after %s, and the unstaging took 23 s more", took)
		}
		must(t, <-unstaged)
	})
}

// TestUnstagingThatFails: the volume stays, and nobody waits for it any more.
func TestUnstagingThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := held(t)
		b.node.mounter = &slowToLeave{fakeMounter: b.mounter, takes: 5 * time.Second, err: storage.Errorf(storage.Unavailable, "the cluster is away")}
		wantKind(t, "unstage", b.unstage(t, "staging"), storage.Unavailable)
		r, err := b.store.GetRecord(t.Context(), "photos")
		must(t, err)
		if l, has := r.Leases["node-1"]; !has || l.Leaving {
			t.Errorf("lease %+v, %v", l, has)
		}
	})
}
