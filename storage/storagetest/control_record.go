package storagetest

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Records is the suite of storage.Records. Others may keep records in the same
// store meanwhile.
func Records(t *testing.T, records storage.Records) {
	t.Run("CreateGetDelete", func(t *testing.T) { recordCreateGetDelete(t, records) })
	t.Run("CreateIsExclusive", func(t *testing.T) { recordExclusive(t, records) })
	t.Run("UpdateIsConditional", func(t *testing.T) { recordConditional(t, records) })
	t.Run("UpdateMissingIsNotFound", func(t *testing.T) { recordUpdateMissing(t, records) })
	t.Run("NoUpdateIsLost", func(t *testing.T) { recordNoneLost(t, records) })
	t.Run("ListInPages", func(t *testing.T) { recordList(t, records) })
	t.Run("CallerSharesNothing", func(t *testing.T) { recordShared(t, records) })
	t.Run("ContextEnds", func(t *testing.T) { recordContext(t, records) })
	t.Run("SizeIsBounded", func(t *testing.T) { recordBounded(t, records) })
	t.Run("LeasesAreRenewedAtOnce", func(t *testing.T) { recordLeases(t, records) })
}

func sample(id storage.VolumeID) storage.Record {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	return storage.Record{
		Version: storage.RecordVersion, Epoch: 7, Owner: "node-1",
		ID: id, Name: "pvc-" + string(id), Bucket: storage.BucketName(id), Capacity: 1<<40 + 1,
		Access: storage.Single, Parameters: map[string]string{"a": "b"},
		User: "holdfast-" + string(id), Keys: storage.Keys{Access: "AK", Secret: "s/ec+ret="},
		Retired:  []storage.RetiredKey{{Access: "OLD", Until: at.Add(time.Hour)}},
		Rotation: &storage.Rotation{ID: "r", Begun: at},
		Phase:    storage.Creating, Created: at,
		Leases: map[string]storage.Lease{"node-1": {Epoch: 7, Renewal: 3, For: time.Minute, Grace: time.Second, Since: at, Until: at.Add(time.Minute), Path: "/var/lib/x"}},
	}
}

func recordCreateGetDelete(t *testing.T, records storage.Records) {
	ctx, r := t.Context(), sample(volume())
	_, err := records.GetRecord(ctx, r.ID)
	wantKind(t, "get before", err, storage.NotFound)
	made := createRecord(t, records, r)
	got, err := records.GetRecord(ctx, r.ID)
	must(t, "get", err)
	for _, have := range []storage.Record{made, got} {
		have.Origin = nil
		if !reflect.DeepEqual(have, r) {
			t.Errorf("record = %+v\nwant %+v", have, r)
		}
	}
	must(t, "delete", records.DeleteRecord(ctx, r.ID))
	must(t, "delete again", records.DeleteRecord(ctx, r.ID))
	_, err = records.GetRecord(ctx, r.ID)
	wantKind(t, "get after", err, storage.NotFound)
}

func recordExclusive(t *testing.T, records storage.Records) {
	r := sample(volume())
	t.Cleanup(func() { _ = records.DeleteRecord(context.WithoutCancel(t.Context()), r.ID) })
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			switch _, err := records.CreateRecord(t.Context(), r); {
			case err == nil:
				made.Add(1)
			case !storage.Is(err, storage.Exists):
				t.Errorf("create: %v, want Exists", err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("%d of 8 creations succeeded, want 1", made.Load())
	}
}

func recordConditional(t *testing.T, records storage.Records) {
	ctx := t.Context()
	first := createRecord(t, records, sample(volume()))
	second := first
	second.Phase = storage.Ready
	second, err := records.UpdateRecord(ctx, second)
	must(t, "update", err)

	stale := first
	stale.Capacity = 7
	_, err = records.UpdateRecord(ctx, stale)
	wantKind(t, "update of a stale one", err, storage.Changed)

	second.Leases = nil
	_, err = records.UpdateRecord(ctx, second)
	must(t, "update by what the update returned", err)
	got, err := records.GetRecord(ctx, first.ID)
	must(t, "get", err)
	if got.Phase != storage.Ready || got.Capacity != first.Capacity || len(got.Leases) != 0 {
		t.Errorf("record = %+v", got)
	}

	must(t, "delete", records.DeleteRecord(ctx, first.ID))
	again := createRecord(t, records, sample(first.ID))
	_, err = records.UpdateRecord(ctx, got)
	wantKind(t, "update of one that was removed and made anew", err, storage.Changed)
	_, err = records.UpdateRecord(ctx, again)
	must(t, "update of the new one", err)
}

func recordUpdateMissing(t *testing.T, records storage.Records) {
	r := createRecord(t, records, sample(volume()))
	must(t, "delete", records.DeleteRecord(t.Context(), r.ID))
	_, err := records.UpdateRecord(t.Context(), r)
	wantKind(t, "update of a missing one", err, storage.NotFound)
}

func recordNoneLost(t *testing.T, records storage.Records) {
	const writers, rounds = 4, 5
	start := sample(volume())
	start.Capacity, start.Leases = 0, nil
	r := createRecord(t, records, start)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for done := 0; done < rounds; {
				r, err := records.GetRecord(t.Context(), r.ID)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				r.Capacity++
				if r.Leases == nil {
					r.Leases = map[string]storage.Lease{}
				}
				r.Leases[fmt.Sprintf("node-%d", w)] = storage.Lease{Until: r.Created}
				switch _, err := records.UpdateRecord(t.Context(), r); {
				case err == nil:
					done++
				case !storage.Is(err, storage.Changed):
					t.Errorf("update: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := records.GetRecord(t.Context(), r.ID)
	must(t, "get", err)
	if got.Capacity != writers*rounds || len(got.Leases) != writers {
		t.Errorf("capacity %d and %d leases, want %d and %d", got.Capacity, len(got.Leases), writers*rounds, writers)
	}
}

func recordList(t *testing.T, records storage.Records) {
	base := volume()
	var want []storage.VolumeID
	for i := range 5 {
		id := storage.VolumeID(fmt.Sprintf("%s-%d", base, i))
		createRecord(t, records, sample(id))
		want = append(want, id)
	}
	var got []storage.VolumeID
	for after := base; len(got) < len(want); {
		page, err := records.ListRecords(t.Context(), after, 2)
		must(t, "list", err)
		if len(page) == 0 || len(page) > 2 {
			t.Fatalf("page of %d records after %s, want 1 or 2", len(page), after)
		}
		for _, r := range page {
			if r.ID <= after {
				t.Fatalf("%s listed after %s", r.ID, after)
			}
			after = r.ID
			got = append(got, r.ID)
		}
	}
	if !reflect.DeepEqual(got[:len(want)], want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	page, err := records.ListRecords(t.Context(), base, 1)
	must(t, "list", err)
	if len(page) == 1 {
		page[0].Capacity = 9
		_, err := records.UpdateRecord(t.Context(), page[0])
		must(t, "update of a listed one", err)
	}
	page, err = records.ListRecords(t.Context(), "zzzz", 10)
	must(t, "list behind the end", err)
	if len(page) != 0 {
		t.Errorf("%d records behind the end", len(page))
	}
}

func recordShared(t *testing.T, records storage.Records) {
	r := createRecord(t, records, sample(volume()))
	r.Leases["intruder"] = storage.Lease{}
	r.Parameters["intruder"] = ""
	r.Retired[0].Access, r.Rotation.ID = "intruder", "intruder"
	got, err := records.GetRecord(t.Context(), r.ID)
	must(t, "get", err)
	if len(got.Leases) != 1 || len(got.Parameters) != 1 || got.Retired[0].Access != "OLD" || got.Rotation.ID != "r" {
		t.Errorf("a caller's change reached the store: %+v", got)
	}
}

func recordContext(t *testing.T, records storage.Records) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id := volume()
	_, err := records.GetRecord(ctx, id)
	wantContext(t, "get", err)
	_, err = records.CreateRecord(ctx, sample(id))
	wantContext(t, "create", err)
	_, err = records.ListRecords(ctx, "", 1)
	wantContext(t, "list", err)
	wantContext(t, "delete", records.DeleteRecord(ctx, id))
}

func recordBounded(t *testing.T, records storage.Records) {
	r := createRecord(t, records, sample(volume()))
	full := r
	full.Leases = map[string]storage.Lease{}
	for i := range storage.MaxRecord / 100 {
		full.Leases[fmt.Sprintf("node-%d", i)] = r.Leases["node-1"]
	}
	_, err := records.UpdateRecord(t.Context(), full)
	wantKind(t, "update with too many leases", err, storage.Full)
	r.Capacity = 9
	_, err = records.UpdateRecord(t.Context(), r)
	must(t, "update of what was refused", err)
}

// recordLeases: two nodes and the two processes of each renew at once, and no
// renewal is lost.
func recordLeases(t *testing.T, records storage.Records) {
	const rounds = 5
	start := sample(volume())
	start.Access, start.Leases = storage.Shared, nil
	start.Grant("node-1", storage.Lease{}, time.Now())
	start.Grant("node-2", storage.Lease{}, time.Now())
	id := createRecord(t, records, start).ID
	var all sync.WaitGroup
	for _, node := range []string{"node-1", "node-1", "node-2", "node-2"} {
		all.Go(func() {
			for done := 0; done < rounds; {
				r, err := records.GetRecord(t.Context(), id)
				if err == nil {
					err = r.Renew(node, r.Leases[node].Epoch, time.Now())
				}
				if err == nil {
					_, err = records.UpdateRecord(t.Context(), r)
				}
				switch {
				case err == nil:
					done++
				case !storage.Is(err, storage.Changed):
					t.Errorf("renew: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := records.GetRecord(t.Context(), id)
	must(t, "get", err)
	for _, node := range []string{"node-1", "node-2"} {
		if n := got.Leases[node].Renewal; n != 1+2*rounds {
			t.Errorf("%s was renewed %d times, want %d", node, n, 1+2*rounds)
		}
	}
}

func volume() storage.VolumeID { return storage.VolumeID(Unique("suite")) }

// createRecord makes a record that goes with the test.
func createRecord(t *testing.T, records storage.Records, r storage.Record) storage.Record {
	t.Helper()
	made, err := records.CreateRecord(t.Context(), r)
	must(t, "create record", err)
	t.Cleanup(func() {
		if err := records.DeleteRecord(context.WithoutCancel(t.Context()), r.ID); err != nil {
			t.Errorf("delete record %s: %v", r.ID, err)
		}
	})
	return made
}
