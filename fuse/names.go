package fuse

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// A file may have several names that we know, and somebody else may have taken some
// of them: what is told of that comes late, or not at all. So a name is a guess
// until the store has answered. When it has another file there, or none, that name is
// given up and the next one is tried; only a file of which no name stands is lost.
// Nothing is lost with a file that has one, and nothing is ever done to the one that
// stands there instead: each change is made on the condition of what was read.

// absence says what it means for a file that the store does not have it under a name.
type absence uint8

const (
	// doubtful: the answer is outdated, and it is to be asked again.
	doubtful absence = iota
	// elsewhere: it has another name, by which it is to be asked for.
	elsewhere
	// nameless: it has no other one that we know of. To eachName it says that there is
	// nothing to go on with, be it done, failed or lost.
	nameless
)

// misses takes the name at p away from n, since the store was said not to have it
// there, provided that there is another one.
func (t *table) misses(a *ask, n *node, p storage.Path) absence {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missesLocked(a, n, p)
}

// lost is misses for who gives the file up with its last name: that is taken away,
// too.
func (t *table) lost(a *ask, n *node, p storage.Path) absence {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.missesLocked(a, n, p)
	if f == nameless {
		t.bareLocked(n)
	}
	return f
}

func (t *table) missesLocked(a *ask, n *node, p storage.Path) absence {
	dir, name := p.Split()
	at := place{t.findLocked(dir), name}
	_, renamed := a.places[at]
	_, changed := a.nodes[n]
	if renamed || changed || a.all || n != t.root && t.byName[at] != n {
		t.asks.outdated.Add(1)
		return doubtful
	}
	for other := range n.links.names {
		if _, err := t.pathLocked(other.dir); err == nil && other != at {
			t.unbindLocked(at)
			return elsewhere
		}
	}
	return nameless
}

// bare takes all names of a file away whose last one in the store is gone by our own
// doing: what else we take for its name is another file's by now.
func (t *table) bare(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bareLocked(n)
}

func (t *table) bareLocked(n *node) {
	for at := range n.links.names {
		t.unbindLocked(at)
	}
}

// byName does something with a file by one of its names, and by another one as long
// as do finds that it is not there: missing, with the error that is returned when
// there is no other.
func (fs *FS) byName(ctx context.Context, n *node, do func(p storage.Path) (missing bool, err error)) error {
	return n.eachName(ctx, func() (absence, error) { return fs.byOneName(ctx, n, do) })
}

// eachName tries something by one name after the other, until there is none to go on
// with. What one name is doubted for is asked again, and that not for ever.
func (n *node) eachName(ctx context.Context, one func() (absence, error)) error {
	for try := 0; try < maxOutdated; {
		if err := pause(ctx, try); err != nil {
			return err
		}
		switch f, err := one(); f {
		case doubtful:
			try++
		case elsewhere:
		case nameless:
			return err
		}
	}
	return storage.Errorf(storage.Busy, "node %d was changed %d times meanwhile", n.id, maxOutdated)
}

// byOneName is byName by one of them: nameless when there is none after it, or no need
// of one.
func (fs *FS) byOneName(ctx context.Context, n *node, do func(p storage.Path) (missing bool, err error)) (absence, error) {
	p, done, err := fs.at(ctx, n)
	if err != nil {
		return nameless, err
	}
	defer done()
	a := fs.table.ask()
	defer fs.table.answered(a)
	missing, err := do(p)
	if !missing {
		return nameless, err
	}
	return fs.table.misses(a, n, p), err
}

// entryAt returns what the store has of n at p, where the caller holds the tree.
// missing: there is nothing, or another file; the error, Stale, says so.
func (fs *FS) entryAt(ctx context.Context, n *node, p storage.Path) (e storage.Entry, missing bool, err error) {
	e, err = fs.vol.Files.Lookup(ctx, p)
	switch {
	case storage.Is(err, storage.NotFound):
		return e, true, storage.Errorf(storage.Stale, "%w", err)
	case err != nil:
		return e, false, err
	case n != fs.table.root && !sameFile(n, e):
		return e, true, storage.Errorf(storage.Stale, "%q was replaced by somebody else", p)
	}
	return e, false, nil
}
