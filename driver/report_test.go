package driver

import (
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// reported returns the reasons of the only report, and its beat.
func (b *bench) reported(t *testing.T) (reasons string, beat uint64) {
	t.Helper()
	list, err := b.store.ListReports(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Node != "node-1" {
		t.Fatalf("reports: %+v", list)
	}
	var all []string
	for _, f := range list[0].Volumes["photos"] {
		all = append(all, f.Status+" "+f.Reason)
	}
	return strings.Join(all, ", "), list[0].Beat
}

// TestReport: what is not well is reported while it lasts, once more when it is over,
// and nothing is written after that.
func TestReport(t *testing.T) {
	b := newBench(t)
	b.node.reports = b.store
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	b.mounter.health = Health{Serving: true, Leftovers: 2}
	said, beat := true, uint64(0)
	step := func(want string) {
		t.Helper()
		beat++
		var err error
		said, err = b.node.reportOnce(t.Context(), beat, said)
		must(t, err)
		if got, at := b.reported(t); got != want || at != beat {
			t.Errorf("reported %q at %d, want %q at %d", got, at, want, beat)
		}
	}
	step("degraded Leftovers")
	step("degraded Leftovers")
	b.mounter.health = Health{Serving: true}
	step("")
	if _, err := b.node.reportOnce(t.Context(), beat+1, said); err != nil {
		t.Fatal(err)
	}
	if _, at := b.reported(t); at != beat {
		t.Error("reported again, with nothing to say")
	}
}

// TestLostIsTold: a node that has lost its volume says so.
func TestLostIsTold(t *testing.T) {
	b := newBench(t)
	b.node.reports = b.store
	b.create(t)
	must(t, b.stage(t, b.node, "staging", everyone))
	r, err := b.store.GetRecord(t.Context(), "photos")
	must(t, err)
	r.Access = storage.Single
	r.Return("node-1")
	_, err = b.store.UpdateRecord(t.Context(), r)
	must(t, err)
	b.mounter.health = Health{Serving: true}
	if got := b.health(t, "staging"); got != "INACCESSIBLE Lost" {
		t.Errorf("health: %q", got)
	}
	_, err = b.node.reportOnce(t.Context(), 1, false)
	must(t, err)
	if got, _ := b.reported(t); got != "inaccessible Lost" {
		t.Errorf("reported: %q", got)
	}
}
