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
// what was just done, and waiters would pile up behind a slow store. Two things
// are waited for all the same. What we do by ourselves (a renewal, some
// milliseconds): a caller could not make sense of being refused because of it.
// And publications at other paths: a hundred pods of a node that end at once
// would refuse each other, and the kubelet doubles its delay, up to two minutes,
// each time.
type pending struct {
	mu struct {
		sync.Mutex
		ops map[storage.VolumeID]*operation
	}
}

type operation struct {
	name  string
	path  string // of a publication, and of its end
	quiet bool
	done  chan struct{}
}

// do runs fn unless an operation on the volume is under way: Busy then.
func (p *pending) do(ctx context.Context, id storage.VolumeID, name string, fn func() error) error {
	return p.run(ctx, id, &operation{name: name}, fn)
}

// doAt runs fn, which publishes the volume at that path or ends that, after
// those of other paths. It is Busy as do is, and when the same path is at work.
func (p *pending) doAt(ctx context.Context, id storage.VolumeID, name, path string, fn func() error) error {
	return p.run(ctx, id, &operation{name: name, path: path}, fn)
}

func (p *pending) run(ctx context.Context, id storage.VolumeID, op *operation, fn func() error) error {
	op.done = make(chan struct{})
	for {
		other := p.start(id, op)
		if other == nil {
			defer p.end(id)
			return fn()
		}
		elsewhere := op.path != "" && other.path != "" && op.path != other.path
		if !other.quiet && !elsewhere {
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
