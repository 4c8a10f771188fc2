package storagetest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Reports is the suite of storage.Reports. Others may report meanwhile.
func Reports(t *testing.T, reports storage.Reports) {
	t.Run("PutListDelete", func(t *testing.T) { reportPutListDelete(t, reports) })
	t.Run("AnyName", func(t *testing.T) { reportAnyName(t, reports) })
	t.Run("SizeIsBounded", func(t *testing.T) { reportBounded(t, reports) })
	t.Run("ContextEnds", func(t *testing.T) { reportContext(t, reports) })
}

func reportOf(t *testing.T, reports storage.Reports, node string) *storage.Report {
	t.Helper()
	list, err := reports.ListReports(t.Context())
	must(t, "list", err)
	i := slices.IndexFunc(list, func(r storage.Report) bool { return r.Node == node })
	if i < 0 {
		return nil
	}
	return &list[i]
}

func putReport(t *testing.T, reports storage.Reports, r storage.Report) {
	t.Helper()
	must(t, "put", reports.PutReport(t.Context(), r))
	t.Cleanup(func() { _ = reports.DeleteReport(context.WithoutCancel(t.Context()), r.Node) })
}

func reportPutListDelete(t *testing.T, reports storage.Reports) {
	r := storage.Report{
		Node: string(volume()), Beat: 1, Every: 20 * time.Second,
		Volumes: map[storage.VolumeID][]storage.Finding{"photos": {{Status: "degraded", Reason: "Slow", Message: "the cluster is slow"}}},
	}
	must(t, "delete before", reports.DeleteReport(t.Context(), r.Node))
	for ; r.Beat < 4; r.Beat++ {
		putReport(t, reports, r)
		if got := reportOf(t, reports, r.Node); got == nil || !reflect.DeepEqual(*got, r) {
			t.Fatalf("report = %+v, want %+v", got, r)
		}
	}
	r.Volumes = nil
	putReport(t, reports, r)
	if got := reportOf(t, reports, r.Node); got == nil || len(got.Volumes) != 0 || got.Beat != r.Beat {
		t.Errorf("report = %+v, want %+v", got, r)
	}
	must(t, "delete", reports.DeleteReport(t.Context(), r.Node))
	if got := reportOf(t, reports, r.Node); got != nil {
		t.Errorf("deleted: %+v", got)
	}
	wantKind(t, "without a node", reports.PutReport(t.Context(), storage.Report{Beat: 1}), storage.Invalid)
}

// Node names are CSI's, any 256 bytes; none reaches another folder or another's report.
func reportAnyName(t *testing.T, reports storage.Reports) {
	unique := string(volume())
	names := []string{unique, ".", "..", "../volumes/" + unique, "A/" + unique, strings.ToUpper(unique), strings.Repeat("n", 256), "knöten " + unique}
	for i, name := range names {
		putReport(t, reports, storage.Report{Node: name, Beat: uint64(i) + 1})
	}
	for i, name := range names {
		if got := reportOf(t, reports, name); got == nil || got.Beat != uint64(i)+1 {
			t.Errorf("report of %q = %+v", name, got)
		}
	}
}

func reportBounded(t *testing.T, reports storage.Reports) {
	r := storage.Report{Node: string(volume()), Beat: 1, Volumes: map[storage.VolumeID][]storage.Finding{}}
	long := storage.Finding{Status: "degraded", Reason: "Slow", Message: strings.Repeat("ä", 4<<10)}
	for i := range 2000 {
		r.Volumes[storage.VolumeID(fmt.Sprintf("volume-%d", i))] = slices.Repeat([]storage.Finding{long}, 100)
	}
	putReport(t, reports, r)
	got := reportOf(t, reports, r.Node)
	if got == nil || len(got.Volumes) < 20 {
		t.Fatalf("a report that is too long: %+v", got)
	}
	for id, found := range got.Volumes {
		if len(found) > 8 || len(found[0].Message) > 512 || strings.ContainsRune(found[0].Message, '\uFFFD') {
			t.Fatalf("volume %s: %d findings, the first of %d bytes", id, len(found), len(found[0].Message))
		}
	}
}

func reportContext(t *testing.T, reports storage.Reports) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantContext(t, "put", reports.PutReport(ctx, storage.Report{Node: "n", Beat: 1}))
	_, err := reports.ListReports(ctx)
	wantContext(t, "list", err)
	wantContext(t, "delete", reports.DeleteReport(ctx, "n"))
}
