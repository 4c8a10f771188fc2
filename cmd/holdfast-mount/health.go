package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
)

// askTimeout bounds the look at the cluster: whoever asks how a volume is does not
// want to wait for it.
const askTimeout = 1500 * time.Millisecond

// health is a coat of a volume's watcher, which knows whether the stream of changes
// is up: a cluster that is slow to answer while it is up is not away.
type health struct {
	storage.Watcher
	files   storage.Files
	watched atomic.Bool
}

// Watch implements storage.Watcher.
func (h *health) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	defer h.watched.Store(false)
	return h.Watcher.Watch(ctx, func() {
		h.watched.Store(true)
		ready()
	}, each)
}

// report is what this process says of a volume to the node service, through the
// keeper, which does not look inside.
type report struct {
	// Took is how long the cluster needed to answer, or how long it was waited for.
	Took time.Duration `json:"took"`
	// Away says why the cluster is out of reach.
	Away string `json:"away,omitempty"`
	// Gone: there is no such bucket.
	Gone bool `json:"gone,omitempty"`
	// Leftovers are the files that were kept aside, since they could not be
	// committed.
	Leftovers int `json:"leftovers,omitempty"`
	// Behind is by how much the cluster is behind what a volume of durability node
	// should have brought to it, Why the reason where there is one.
	Behind time.Duration `json:"behind,omitempty"`
	Why    string        `json:"why,omitempty"`
}

// healthy is a file system that says how it is.
type healthy struct {
	*fuse.FS
	*health
}

func (h healthy) report(ctx context.Context) (r report, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	begun := time.Now()
	_, err = h.files.Lookup(ctx, "")
	r.Took = time.Since(begun)
	switch {
	case storage.Is(err, storage.NotFound):
		r.Gone = true
	case err != nil && !h.watched.Load():
		r.Away = err.Error()
	}
	age, why := h.Behind()
	if r.Behind = age; why != nil {
		r.Why = why.Error()
	}
	r.Leftovers, err = h.Leftovers()
	return r, err
}

var _ keeper.Reporter = (*server)(nil)

// Report implements keeper.Reporter.
func (s *server) Report(ctx context.Context, id string) (json.RawMessage, error) {
	s.mu.Lock()
	sv := s.mu.sessions[id]
	s.mu.Unlock()
	if sv == nil {
		return nil, storage.Errorf(storage.NotFound, "session %s is not served here", id)
	}
	f, ok := sv.fs.(interface {
		report(ctx context.Context) (report, error)
	})
	if !ok {
		return nil, storage.Errorf(storage.Unsupported, "session %s says nothing of itself", id)
	}
	r, err := f.report(ctx)
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", id, err)
	}
	return json.Marshal(r)
}
