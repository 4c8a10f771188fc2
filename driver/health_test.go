package driver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
)

// said returns "STATUS Reason" of each condition.
func said(h *csi.VolumeHealth) string {
	var all []string
	for _, c := range h.GetHealthStatuses() {
		all = append(all, c.GetStatus().String()+" "+c.GetReason())
	}
	return strings.Join(all, ", ")
}

func (b *bench) health(t *testing.T, paths ...string) string {
	t.Helper()
	req := &csi.NodeGetVolumeHealthRequest{VolumeId: "photos"}
	if len(paths) > 0 {
		req.StagingTargetPath = b.path(paths[0])
	}
	if len(paths) > 1 {
		req.VolumePublishPath = b.path(paths[1])
	}
	resp, err := b.node.NodeGetVolumeHealth(t.Context(), req)
	must(t, err)
	return said(resp.GetVolumeHealth())
}

// TestNodeHealth is the table of states in ARCHITECTURE.md.
func TestNodeHealth(t *testing.T) {
	b := newBench(t)
	_, err := b.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{})
	wantKind(t, "no id", err, storage.Invalid)
	_, err = b.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "photos"})
	wantKind(t, "no volume", err, storage.NotFound)
	b.create(t)
	if got := b.health(t, "staging"); got != "INACCESSIBLE NotMounted" {
		t.Errorf("not staged: %q", got)
	}
	must(t, b.stage(t, b.node, "staging", everyone))
	if got := b.health(t, "staging", "pod"); got != "INACCESSIBLE NotMounted" {
		t.Errorf("not published: %q", got)
	}
	must(t, b.publish(t, "pod", everyone, false))
	for _, c := range []struct {
		health Health
		want   string
	}{
		{Health{}, ""},
		{Health{Waiting: 7, Took: time.Millisecond}, ""},
		{Health{Waiting: -1}, ""},
		{Health{Behind: 3 * time.Second, Why: "the store is away"}, "DEGRADED NotCommitted"},
		{Health{Took: 2 * time.Second}, "DEGRADED Slow"},
		{Health{Away: "no answer", Took: 2 * time.Second}, "INACCESSIBLE ClusterAway"},
		{Health{Silent: "no answer"}, "INACCESSIBLE MounterSilent"},
		{Health{Gone: true}, "DATA_LOSS BucketGone"},
		{Health{Leftovers: 2}, "DEGRADED Leftovers"},
		{Health{Leftovers: 2, Away: "no answer"}, "INACCESSIBLE ClusterAway, DEGRADED Leftovers"},
	} {
		b.mounter.health = c.health
		if got := b.health(t, "staging", "pod"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.health, got, c.want)
		}
	}
	b.mounter.health = Health{}
	b.mounter.hurt("photos")
	if got := b.health(t); got != "INACCESSIBLE NoMounter" {
		t.Errorf("not served: %q", got)
	}
	b.mounter.mu.mounts[0].Dead = true
	if got := b.health(t); got != "INACCESSIBLE SessionEnded" {
		t.Errorf("dead: %q", got)
	}
	must(t, b.stage(t, b.node, "staging", everyone))
	if got := b.health(t); got != "" {
		t.Errorf("staged again: %q", got)
	}
	b.mounter.fail["Health"] = storage.Errorf(storage.Unavailable, "no keeper")
	_, err = b.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "photos"})
	wantKind(t, "nobody knows", err, storage.Unavailable)
}

// slowRecords answer when they are let.
type slowRecords struct {
	storage.Records
	slow bool
}

func (s *slowRecords) wait(ctx context.Context) error {
	if !s.slow {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *slowRecords) GetRecord(ctx context.Context, id storage.VolumeID) (storage.Record, error) {
	if err := s.wait(ctx); err != nil {
		return storage.Record{}, err
	}
	return s.Records.GetRecord(ctx, id)
}

func (s *slowRecords) ListRecords(ctx context.Context, after storage.VolumeID, limit int) ([]storage.Record, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Records.ListRecords(ctx, after, limit)
}

// TestStageOnASlowCluster: a volume that is alive here stays as it is, and the
// caller hears that soon; one whose session has ended is worth the wait.
func TestStageOnASlowCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.create(t)
		must(t, b.stage(t, b.node, "staging", everyone))
		records := &slowRecords{Records: b.store, slow: true}
		b.node.records = records
		for _, healthy := range []bool{true, false} {
			if !healthy {
				b.mounter.hurt("photos")
			}
			begun := time.Now()
			err := b.stage(t, b.node, "staging", everyone)
			if code := status.Code(toStatus(err)); code != codes.Aborted {
				t.Errorf("stage: %v, want Aborted", err)
			}
			if took := time.Since(begun); took > b.node.o.StatTimeout {
				t.Errorf("it took %v", took)
			}
		}
		if calls := len(b.mounter.mu.configs); calls != 1 || len(b.mounter.mu.mounts) != 1 {
			t.Errorf("a slow stage mounted (%d) or unmounted", calls)
		}
		b.mounter.mu.mounts[0].Dead = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		_, err := b.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: "photos", StagingTargetPath: b.path("staging"), VolumeCapability: mountCap(everyone),
		})
		if !storage.IsContext(err) || time.Since(begun) < time.Minute {
			t.Errorf("a dead one was given up after %v: %v", time.Since(begun), err)
		}
		resp, err := b.node.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
		if err != nil || len(resp.GetBackendHealth()) != 1 || resp.GetBackendHealth()[0].GetStatus() != csi.StorageHealthErrorType_STORAGE_UNREACHABLE {
			t.Errorf("storage: %v, %v", resp, err)
		}
		records.slow = false
		must(t, b.stage(t, b.node, "staging", everyone))
		if all, _ := b.mounter.Mounts(t.Context()); !all[0].Healthy || all[0].Dead {
			t.Errorf("not mended: %+v", all)
		}
		resp, err = b.node.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
		if err != nil || len(resp.GetBackendHealth()) != 0 {
			t.Errorf("storage: %v, %v", resp, err)
		}
	})
}

func TestControllerHealth(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"aaa", "bbb", "ccc"} {
		_, err := b.controller.CreateVolume(t.Context(), ask(name))
		must(t, err)
	}
	health := func(id string) string {
		resp, err := b.controller.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		must(t, err)
		return said(resp.GetVolumeHealth())
	}
	_, err := b.controller.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: "no-such"})
	wantKind(t, "no volume", err, storage.NotFound)
	list := func(token string) (*csi.ControllerListVolumeHealthResponse, error) {
		return b.controller.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, StartingToken: token})
	}
	resp, err := list("")
	if err != nil || len(resp.GetEntries()) > 0 || resp.GetNextToken() != "" {
		t.Errorf("all are well: %v, %v", resp, err)
	}
	must(t, b.store.DeleteBucket(t.Context(), "aaa"))
	_, err = updateRecord(t.Context(), b.store, "ccc", func(r *storage.Record) error { r.Phase = storage.Deleting; return nil })
	must(t, err)
	for id, want := range map[string]string{"aaa": "DATA_LOSS BucketGone", "bbb": "", "ccc": "INACCESSIBLE HalfDeleted"} {
		if got := health(id); got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
	var ids []string
	for token := ""; ; {
		resp, err := list(token)
		must(t, err)
		for _, e := range resp.GetEntries() {
			ids = append(ids, e.GetVolumeId())
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	if strings.Join(ids, " ") != "aaa ccc" {
		t.Errorf("listed: %v", ids)
	}
}
