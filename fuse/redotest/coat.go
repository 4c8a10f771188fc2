package redotest

import (
	"context"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// coat is a store that dies for its user at one of its calls, before or after it
// is carried out. From then on nothing reaches the store: so what the dead
// mounter does with the errors has no effect.
type coat struct {
	storage.Volume

	// watching is closed when the mounter is told of changes.
	watching chan struct{}
	once     sync.Once

	mu sync.Mutex
	// counting calls, from when it is armed.
	armed bool
	count int
	// at is the call to die at, from 1; after says on which side of it.
	at    int
	after bool
	dead  bool
	// died is called at the moment of death, under the lock.
	died func()
}

var errDead = storage.Errorf(storage.Unavailable, "the mounter is dead")

func newCoat(v storage.Volume, died func()) *coat {
	return &coat{Volume: v, watching: make(chan struct{}), died: died}
}

// coated returns the volume with c around it.
func (c *coat) coated() storage.Volume {
	v := c.Volume
	v.Files, v.Orphans = files{c.Files, c}, orphans{c.Orphans, c}
	v.Watcher = watcher{c.Watcher, c}
	return v
}

type watcher struct {
	storage.Watcher
	c *coat
}

// Watch tells when the mounter has heard that it watches: it makes fewer calls
// from then on, and the number is to be known.
func (w watcher) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	return w.Watcher.Watch(ctx, func() {
		ready()
		w.c.once.Do(func() { close(w.c.watching) })
	}, each)
}

// arm begins to count; at is the call to die at, or 0.
func (c *coat) arm(at int, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.count, c.at, c.after = true, 0, at, after
}

// calls that were counted.
func (c *coat) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// call carries f out, if its user lives, and is its last one if it is so.
func (c *coat) call(f func() error) error {
	c.mu.Lock()
	if c.armed {
		c.count++
	}
	last := c.armed && c.at == c.count
	if c.dead || last && !c.after {
		c.dieLocked()
		c.mu.Unlock()
		return errDead
	}
	if !last {
		c.mu.Unlock()
		return f()
	}
	defer c.mu.Unlock()
	_ = f() // nobody hears of it
	c.dieLocked()
	return errDead
}

func (c *coat) dieLocked() {
	if !c.dead {
		c.dead = true
		c.died()
	}
}

type files struct {
	storage.Files
	c *coat
}

func (f files) Lookup(ctx context.Context, p storage.Path) (e storage.Entry, err error) {
	err = f.c.call(func() error { e, err = f.Files.Lookup(ctx, p); return err })
	return e, err
}

// List is not counted: the survey of the volume calls it when it likes, and the
// changes that are tried do not.
func (f files) List(ctx context.Context, p storage.Path, after string, limit int) ([]storage.Entry, error) {
	f.c.mu.Lock()
	dead := f.c.dead
	f.c.mu.Unlock()
	if dead {
		return nil, errDead
	}
	return f.Files.List(ctx, p, after, limit)
}

func (f files) Create(ctx context.Context, p storage.Path, e storage.Entry, sure bool) (made storage.Entry, err error) {
	err = f.c.call(func() error { made, err = f.Files.Create(ctx, p, e, sure); return err })
	return made, err
}

func (f files) Update(ctx context.Context, p storage.Path, e storage.Entry) (made storage.Entry, err error) {
	err = f.c.call(func() error { made, err = f.Files.Update(ctx, p, e); return err })
	return made, err
}

func (f files) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, o *storage.Orphan) error {
	return f.c.call(func() error { return f.Files.Rename(ctx, from, to, source, target, o) })
}

func (f files) Remove(ctx context.Context, p storage.Path, e storage.Entry, o *storage.Orphan) error {
	return f.c.call(func() error { return f.Files.Remove(ctx, p, e, o) })
}

func (f files) BeginLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (made storage.Entry, err error) {
	err = f.c.call(func() error { made, err = f.Files.BeginLink(ctx, p, e, op); return err })
	return made, err
}

func (f files) EndLink(ctx context.Context, from, to storage.Path, e storage.Entry, op string) (made storage.Entry, err error) {
	err = f.c.call(func() error { made, err = f.Files.EndLink(ctx, from, to, e, op); return err })
	return made, err
}

func (f files) CancelLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (made storage.Entry, err error) {
	err = f.c.call(func() error { made, err = f.Files.CancelLink(ctx, p, e, op); return err })
	return made, err
}

// held has another name than the method of what it embeds.
type held interface{ storage.Orphans }

type orphans struct {
	held
	c *coat
}

func (o orphans) FreeOrphan(ctx context.Context, f storage.Orphan) error {
	return o.c.call(func() error { return o.held.FreeOrphan(ctx, f) })
}
