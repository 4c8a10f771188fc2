package seaweed

import (
	"context"
	"maps"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// locations remembers which servers hold a volume. An entry lives until a read
// from it fails: volumes move seldom, and a read from the wrong server fails.
type locations struct {
	lookup func(ctx context.Context, volumes []string) (map[string][]string, error)

	mu struct {
		sync.Mutex
		urls map[string][]string
	}
}

func newLocations(lookup func(context.Context, []string) (map[string][]string, error)) *locations {
	l := &locations{lookup: lookup}
	l.mu.urls = map[string][]string{}
	return l
}

// get returns the host:port of the servers that hold the volume, and whether that
// was remembered.
func (l *locations) get(ctx context.Context, volume string) (urls []string, old bool, err error) {
	l.mu.Lock()
	urls = l.mu.urls[volume]
	l.mu.Unlock()
	if len(urls) > 0 {
		return urls, true, nil
	}
	found, err := l.lookup(ctx, []string{volume})
	if err != nil {
		return nil, false, err
	}
	if len(found[volume]) == 0 {
		return nil, false, storage.Errorf(storage.Unavailable, "volume %s has no server now", volume)
	}
	l.mu.Lock()
	maps.Copy(l.mu.urls, found)
	l.mu.Unlock()
	return found[volume], false, nil
}

// learn keeps what an assignment told.
func (l *locations) learn(volume, url string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.urls[volume]) == 0 {
		l.mu.urls[volume] = []string{url}
	}
}

// forget drops a volume whose server failed.
func (l *locations) forget(volume string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.urls, volume)
}

// ask tries the servers of a volume in turn, until one does what it is asked.
//
// A chunk is gone only when those say so that have the volume now: a server that
// has lost it, to another one or by a restart, answers not found too. The master
// lists a server for a volume only while that server itself reports it, so what
// was remembered is looked up anew before it is believed. And while one replica
// cannot be reached, nothing is gone.
func (c *Client) ask(ctx context.Context, volume string, try func(url string) error) error {
	for {
		urls, old, err := c.locations.get(ctx, volume)
		if err != nil {
			return err
		}
		var gone, away error
		for _, url := range urls {
			err := try(url)
			switch {
			case err == nil || storage.IsContext(err):
				return err
			case storage.Is(err, storage.NotFound):
				gone = err
			default:
				away = err
			}
		}
		c.locations.forget(volume)
		if away != nil {
			return away
		}
		if !old {
			return gone
		}
	}
}

func (c *Client) lookupVolumes(ctx context.Context, volumes []string) (map[string][]string, error) {
	found := map[string][]string{}
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.LookupVolume(ctx, &filerpb.LookupVolumeRequest{VolumeIds: volumes})
		if err != nil {
			return classify(ctx, err)
		}
		for v, l := range r.GetLocationsMap() {
			for _, at := range l.GetLocations() {
				found[v] = append(found[v], at.GetUrl())
			}
		}
		return nil
	})
	return found, err
}
