package driver

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is what metrics say of volumes. How full one is was asked by the kubelet
// anyway, each minute, so the last answer is told again: measuring for each scrape would
// start a process for each volume. What could not be learned, or is too old, is missing,
// and never a zero.

const (
	// toldFor is how long an answer of NodeGetVolumeStats is told again. The kubelet asks
	// each minute while a pod has the volume.
	toldFor = 5 * time.Minute
	// askedAtOnce bounds the questions after the health of volumes, askedFor all of them.
	askedAtOnce = 8
	askedFor    = 5 * time.Second
)

// told are the last answers of NodeGetVolumeStats.
type told struct {
	mu struct {
		sync.Mutex
		last map[string]tellable
	}
}

type tellable struct {
	usage Usage
	at    time.Time
}

// note remembers an answer. A failure takes the one before away.
func (t *told) note(id string, u Usage, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		delete(t.mu.last, id)
		return
	}
	if t.mu.last == nil {
		t.mu.last = map[string]tellable{}
	}
	t.mu.last[id] = tellable{u, time.Now()}
}

// of returns the answer of a volume, nil where there is none, and forgets those of
// volumes that are not mounted any more.
func (t *told) of(all mounts) map[string]*Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := map[string]*Usage{}
	for id, last := range t.mu.last {
		if all.of(id) == nil || time.Since(last.at) > toldFor {
			delete(t.mu.last, id)
			continue
		}
		found[id] = &last.usage
	}
	return found
}

// Healthy is the state of a volume with which all is well.
const Healthy = "Healthy"

// Figures of a volume that is mounted on this node.
type Figures struct {
	ID string
	// Usage is what NodeGetVolumeStats said last, nil when that was long ago, or an error.
	Usage *Usage
	// States are the reasons of NodeGetVolumeHealth, or Healthy; none when it could not be
	// learned in time.
	States []string
}

// Figures of all volumes on this node, within seconds.
func (n *Node) Figures(ctx context.Context) ([]Figures, error) {
	ctx, cancel := context.WithTimeout(ctx, askedFor)
	defer cancel()
	all, err := n.mounts(ctx)
	if err != nil {
		return nil, err
	}
	usages, figures := n.told.of(all), make([]Figures, len(all))
	var asking sync.WaitGroup
	slots := make(chan struct{}, askedAtOnce)
	for i := range all {
		m := &all[i]
		figures[i] = Figures{ID: m.ID, Usage: usages[m.ID]}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		asking.Go(func() {
			defer func() { <-slots }()
			figures[i].States = n.states(ctx, m)
		})
	}
	asking.Wait()
	return figures, nil
}

// states are those of a mount, none when they cannot be learned.
func (n *Node) states(ctx context.Context, m *Mounted) []string {
	h, err := n.mounter.Health(ctx, m.ID)
	if err != nil {
		return nil
	}
	var all []string
	for _, c := range conditions(m, h) {
		if !slices.Contains(all, c.GetReason()) {
			all = append(all, c.GetReason())
		}
	}
	if len(all) == 0 {
		all = []string{Healthy}
	}
	return all
}

// Phases counts the volumes by how far their life has come.
func (c *Controller) Phases(ctx context.Context) (map[storage.Phase]int, error) {
	count := map[storage.Phase]int{storage.Creating: 0, storage.Ready: 0, storage.Deleting: 0, storage.Archived: 0}
	for r, err := range storage.RecordsAfter(ctx, c.records, "") {
		if err != nil {
			return nil, err
		}
		count[r.Phase]++
	}
	return count, nil
}
