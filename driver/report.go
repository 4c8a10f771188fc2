package driver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file writes down which volumes of this node are not well, for whoever tells
// people (storage/report.go). It is a loop of its own: a mounter that does not answer
// costs each question three seconds, which renewals of leases do not have.

// statusWords are those of CSI, for people.
var statusWords = map[csi.VolumeHealthErrorType]string{
	csi.VolumeHealthErrorType_INACCESSIBLE: "inaccessible",
	csi.VolumeHealthErrorType_DATA_LOSS:    "data loss",
	csi.VolumeHealthErrorType_DEGRADED:     "degraded",
}

// Findings are conditions in storage's words.
func Findings(health []*csi.VolumeHealth_VolumeHealthEntry) []storage.Finding {
	var found []storage.Finding
	for _, c := range health {
		found = append(found, storage.Finding{Status: statusWords[c.GetStatus()], Reason: c.GetReason(), Message: c.GetMessage()})
	}
	return found
}

// report reports until ctx ends.
func (n *Node) report(ctx context.Context) {
	// Another process of this node may have reported before: its last word is replaced.
	said := true
	beat := uint64(time.Now().UnixNano()) // only that it is another one matters
	tick := time.NewTicker(n.o.RenewEvery)
	defer tick.Stop()
	for {
		var err error
		if said, err = n.reportOnce(ctx, beat, said); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
			n.log.WarnContext(ctx, "what is not well here was not reported", slog.String("kind", storage.KindOf(err).String()), slog.Any("err", err))
		}
		beat++
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reportOnce writes a report if something is not well, or was: said is whether the last
// report stands there yet and names something.
func (n *Node) reportOnce(ctx context.Context, beat uint64, said bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, n.o.RenewEvery)
	defer cancel()
	all, err := n.mounts(ctx)
	if err != nil {
		return said, err
	}
	r := storage.Report{Node: n.o.NodeID, Beat: beat, Every: n.o.RenewEvery, Volumes: map[storage.VolumeID][]storage.Finding{}}
	var round sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, renewers)
	for i := range all {
		round.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			bounded, cancel := context.WithTimeout(ctx, n.o.StatTimeout)
			defer cancel()
			found, err := n.conditions(bounded, &all[i])
			if err != nil || len(found) == 0 {
				return // an unknown is no finding: a volume that was just unmounted, a cluster that is away
			}
			mu.Lock()
			defer mu.Unlock()
			r.Volumes[storage.VolumeID(all[i].ID)] = Findings(found)
		})
	}
	round.Wait()
	if len(r.Volumes) == 0 && !said {
		return false, nil
	}
	if err := n.reports.PutReport(ctx, r); err != nil {
		return said, err
	}
	return len(r.Volumes) > 0, nil
}
