package seaweed

import (
	"context"
	"maps"
	"net"
	"strconv"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// grpcOffset is from a server's HTTP port to its gRPC port, where nothing else is said.
const grpcOffset = 10000

// holder is a volume server: the host:port where it has chunks, and that of its
// gRPC.
type holder struct{ http, grpc string }

func holderOf(l *filerpb.Location) holder {
	p := holder{http: l.GetUrl()}
	host, port, err := net.SplitHostPort(p.http)
	if err != nil {
		return p
	}
	grpc := int(l.GetGrpcPort())
	if n, err := strconv.Atoi(port); grpc == 0 && err == nil {
		grpc = n + grpcOffset
	}
	p.grpc = net.JoinHostPort(host, strconv.Itoa(grpc))
	return p
}

// locations remembers which servers hold a volume. An entry lives until a read
// from it fails: volumes move seldom, and a read from the wrong server fails.
type locations struct {
	lookup func(ctx context.Context, volumes []string) (map[string][]holder, error)

	mu struct {
		sync.Mutex
		holders map[string][]holder
	}
}

func newLocations(lookup func(context.Context, []string) (map[string][]holder, error)) *locations {
	l := &locations{lookup: lookup}
	l.mu.holders = map[string][]holder{}
	return l
}

// get returns the servers that hold the volume, and whether that was remembered.
func (l *locations) get(ctx context.Context, volume string) (at []holder, old bool, err error) {
	l.mu.Lock()
	at = l.mu.holders[volume]
	l.mu.Unlock()
	if len(at) > 0 {
		return at, true, nil
	}
	found, err := l.lookup(ctx, []string{volume})
	if err != nil {
		return nil, false, err
	}
	if len(found[volume]) == 0 {
		return nil, false, storage.Errorf(storage.Unavailable, "volume %s has no server now", volume)
	}
	l.mu.Lock()
	maps.Copy(l.mu.holders, found)
	l.mu.Unlock()
	return found[volume], false, nil
}

// learn keeps what an assignment told: one of the servers, enough to read.
func (l *locations) learn(volume string, at holder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.holders[volume]) == 0 {
		l.mu.holders[volume] = []holder{at}
	}
}

// forget drops a volume whose server failed.
func (l *locations) forget(volume string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mu.holders, volume)
}

// ask tries the servers of a volume in turn, until one does what it is asked.
//
// A chunk is gone only when those say so that have the volume now: a server that
// has lost it, to another one or by a restart, answers not found too. The master
// lists a server for a volume only while that server itself reports it, so what
// was remembered is looked up anew before it is believed. And while one replica
// cannot be reached, nothing is gone.
func (c *Client) ask(ctx context.Context, volume string, try func(at holder) error) error {
	for {
		holders, old, err := c.locations.get(ctx, volume)
		if err != nil {
			return err
		}
		var gone, away error
		for _, at := range holders {
			err := try(at)
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

func (c *Client) lookupVolumes(ctx context.Context, volumes []string) (map[string][]holder, error) {
	found := map[string][]holder{}
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.LookupVolume(ctx, &filerpb.LookupVolumeRequest{VolumeIds: volumes})
		if err != nil {
			return classify(ctx, err)
		}
		for v, l := range r.GetLocationsMap() {
			for _, at := range l.GetLocations() {
				found[v] = append(found[v], holderOf(at))
			}
		}
		return nil
	})
	return found, err
}
