package storagetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// Placer is the suite of storage.Placer, on a store with two servers or more in one rack
// of one data center. placer and other are two of its users.
func Placer(t *testing.T, placer, other storage.Placer) {
	t.Run("Topology", func(t *testing.T) { placerTopology(t, placer) })
	t.Run("PlaceAndUnplace", func(t *testing.T) { placeAndUnplace(t, placer) })
	t.Run("AnotherRuleIsExists", func(t *testing.T) { placeAnother(t, placer) })
	t.Run("AnotherRuleIsLeftAlone", func(t *testing.T) { unplaceAnother(t, placer) })
	t.Run("RulesAreOfOneRoot", func(t *testing.T) { placeRoots(t, placer) })
	t.Run("ManyAtOnce", func(t *testing.T) { placeMany(t, placer, other) })
	t.Run("ContextEnds", func(t *testing.T) { placeContext(t, placer) })
}

var twoCopies = storage.Placement{Replication: "001", DiskType: storage.DefaultDisk}

func placerTopology(t *testing.T, placer storage.Placer) {
	topology, err := placer.Topology(t.Context())
	must(t, "topology", err)
	if len(topology) < 2 {
		t.Fatalf("servers: %+v", topology)
	}
	seen := map[string]bool{}
	for _, s := range topology {
		if s.Name == "" || seen[s.Name] || s.Rack == "" || s.DataCenter == "" || s.Room[storage.DefaultDisk] <= 0 {
			t.Errorf("server: %+v", s)
		}
		seen[s.Name] = true
	}
	must(t, "what there is", topology.Check(storage.Placement{Replication: "001", DiskType: storage.DefaultDisk, DataCenter: topology[0].DataCenter}))
	for _, p := range []storage.Placement{{Replication: "010"}, {Replication: "100"}, {DiskType: "tape"}, {DataCenter: "the-moon"}} {
		wantKind(t, p.String(), topology.Check(p), storage.Invalid)
	}
}

// place makes a rule that goes with the test.
func place(t *testing.T, placer storage.Placer, b storage.BucketName, folder storage.Path, p storage.Placement) {
	t.Helper()
	must(t, "place", placer.Place(t.Context(), b, folder, p))
	t.Cleanup(func() {
		if err := placer.Unplace(context.WithoutCancel(t.Context()), b, folder, p); err != nil {
			t.Errorf("unplace %s: %v", b, err)
		}
	})
}

func wantPlaced(t *testing.T, placer storage.Placer, b storage.BucketName, folder storage.Path, want storage.Placement) {
	t.Helper()
	got, found, err := placer.Placed(t.Context(), b, folder)
	must(t, "placed", err)
	if got != want || found != !want.IsZero() {
		t.Errorf("rule of %s/%s: %q, found %v, want %q", b, folder, got, found, want)
	}
}

func placeAndUnplace(t *testing.T, placer storage.Placer) {
	ctx, b := t.Context(), Unique("suite")
	all := storage.Placement{Replication: "001", DiskType: "ssd", DataCenter: "here"}
	wantPlaced(t, placer, b, "", storage.Placement{})
	place(t, placer, b, "", all)
	wantPlaced(t, placer, b, "", all)
	must(t, "place again", placer.Place(ctx, b, "", all))
	must(t, "unplace", placer.Unplace(ctx, b, "", all))
	wantPlaced(t, placer, b, "", storage.Placement{})
	must(t, "unplace what is gone", placer.Unplace(ctx, b, "", all))
	place(t, placer, b, "", twoCopies)
	wantPlaced(t, placer, b, "", twoCopies)
}

func placeAnother(t *testing.T, placer storage.Placer) {
	b := Unique("suite")
	place(t, placer, b, "", twoCopies)
	for _, p := range []storage.Placement{{Replication: "000", DiskType: storage.DefaultDisk}, {Replication: "001"}, {DataCenter: "here"}} {
		wantKind(t, p.String(), placer.Place(t.Context(), b, "", p), storage.Exists)
	}
	wantPlaced(t, placer, b, "", twoCopies)
}

func unplaceAnother(t *testing.T, placer storage.Placer) {
	b := Unique("suite")
	place(t, placer, b, "", twoCopies)
	must(t, "unplace another", placer.Unplace(t.Context(), b, "", storage.Placement{Replication: "001"}))
	wantPlaced(t, placer, b, "", twoCopies)
}

func placeRoots(t *testing.T, placer storage.Placer) {
	b := Unique("suite")
	other := storage.Placement{Replication: "000"}
	place(t, placer, b, "", twoCopies)
	place(t, placer, b, "a/b", other)
	wantPlaced(t, placer, b+"-more", "", storage.Placement{})
	wantPlaced(t, placer, b, "a", storage.Placement{})
	wantPlaced(t, placer, b, "a/b", other)
	must(t, "unplace the bucket", placer.Unplace(t.Context(), b, "", twoCopies))
	wantPlaced(t, placer, b, "a/b", other)
}

// placeMany: none of those who change the rules at once undoes another's.
func placeMany(t *testing.T, placer, other storage.Placer) {
	const many = 12
	b, users := Unique("suite"), [2]storage.Placer{placer, other}
	var group sync.WaitGroup
	errs := make([]error, many)
	for i := range many {
		group.Go(func() { errs[i] = users[i%2].Place(t.Context(), b, storage.Path(fmt.Sprint(i)), twoCopies) })
	}
	group.Wait()
	for i, err := range errs {
		must(t, "place", err)
		wantPlaced(t, placer, b, storage.Path(fmt.Sprint(i)), twoCopies)
	}
	for i := range many {
		group.Go(func() { errs[i] = users[i%2].Unplace(t.Context(), b, storage.Path(fmt.Sprint(i)), twoCopies) })
	}
	group.Wait()
	for i, err := range errs {
		must(t, "unplace", err)
		wantPlaced(t, placer, b, storage.Path(fmt.Sprint(i)), storage.Placement{})
	}
}

func placeContext(t *testing.T, placer storage.Placer) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Unique("suite")
	wantContext(t, "place", placer.Place(ctx, b, "", twoCopies))
	wantContext(t, "unplace", placer.Unplace(ctx, b, "", twoCopies))
	_, _, err := placer.Placed(ctx, b, "")
	wantContext(t, "placed", err)
	_, err = placer.Topology(ctx)
	wantContext(t, "topology", err)
}
