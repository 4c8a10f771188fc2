package driver

import (
	"context"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// pending lets one operation at a time touch a volume. CSI allows a caller to
// repeat a call whose answer it did not wait for, so two of them meet often.
//
// Waiting for the first was the alternative: the second would then do again
// what was just done, and waiters would pile up behind a slow store. Only what
// we do by ourselves (a renewal, some milliseconds) is waited for: a caller could
// not make sense of being refused because of it.
type pending struct {
	mu struct {
		sync.Mutex
		ops map[storage.VolumeID]*operation
	}
}

type operation struct {
	name  string
	quiet bool
	done  chan struct{}
}

// do runs fn unless an operation on the volume is under way: Busy then.
func (p *pending) do(ctx context.Context, id storage.VolumeID, name string, fn func() error) error {
	for {
		other := p.start(id, &operation{name: name, done: make(chan struct{})})
		switch {
		case other == nil:
			defer p.end(id)
			return fn()
		case !other.quiet:
			return storage.Errorf(storage.Busy, "volume %s: %s is still under way; try again", id, other.name)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-other.done:
		}
	}
}

// doQuietly runs fn, which has to be short, if nothing is under way.
func (p *pending) doQuietly(id storage.VolumeID, fn func()) {
	if p.start(id, &operation{quiet: true, done: make(chan struct{})}) != nil {
		return
	}
	defer p.end(id)
	fn()
}

// start returns what is in the way, or nil.
func (p *pending) start(id storage.VolumeID, op *operation) *operation {
	p.mu.Lock()
	defer p.mu.Unlock()
	if other, taken := p.mu.ops[id]; taken {
		return other
	}
	if p.mu.ops == nil {
		p.mu.ops = map[storage.VolumeID]*operation{}
	}
	p.mu.ops[id] = op
	return nil
}

func (p *pending) end(id storage.VolumeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.mu.ops[id].done)
	delete(p.mu.ops, id)
}
