package seaweed

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Create implements storage.Files. The filer would make missing parents, and
// turn a file that is named as one into a folder: so the parent is looked at
// first, by whoever is not sure of it. A parent that goes between the two is
// made again by the filer.
func (b *bucket) Create(ctx context.Context, p storage.Path, e storage.Entry, sure bool) (storage.Entry, error) {
	dir, name := b.locate(p)
	if !sure {
		if err := b.checkParent(ctx, p); err != nil {
			return storage.Entry{}, fmt.Errorf("create %q: %w", p, err)
		}
	}
	e.Name, e.Origin = name, nil
	w := toWire(e)
	made, err := b.create(ctx, dir, w)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("create %q: %w", p, err)
	}
	return made, nil
}

// checkParent looks whether there is a directory for p to be in.
func (b *bucket) checkParent(ctx context.Context, p storage.Path) error {
	parent, _ := p.Split()
	up, err := b.Lookup(ctx, parent)
	if err == nil && !up.IsDir() {
		err = storage.Errorf(storage.NotDirectory, "%q is not a directory", parent)
	}
	return err
}

// create sends a new entry. An attempt that got no answer may have been carried
// out: the entry is then there with our inode number, which nobody else gives.
func (c *Client) create(ctx context.Context, dir string, w *filerpb.Entry) (storage.Entry, error) {
	stored := w
	err := c.call(ctx, func(ctx context.Context, attempt int) error {
		r, err := c.filer.CreateEntry(ctx, &filerpb.CreateEntryRequest{
			Directory: dir, Entry: w, OExcl: true, Signatures: c.signatures(),
		})
		if err != nil {
			return classify(ctx, err)
		}
		err = refused(r.GetErrorCode(), r.GetError())
		if attempt > 0 && storage.Is(err, storage.Exists) && w.GetAttributes().GetInode() != 0 {
			if found, lookErr := c.entry(ctx, dir, w.GetName()); lookErr == nil && found.Inode == w.GetAttributes().GetInode() {
				stored = found.Origin.(origin).entry
				return nil
			}
		}
		stored = asStored(r.GetMetadataEvent(), w)
		return err
	})
	if err != nil {
		return storage.Entry{}, err
	}
	return fromWire(stored), nil
}

// Update implements storage.Files.
func (b *bucket) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	dir, name := b.locate(p)
	e.Name = name
	done, err := b.update(ctx, dir, e)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("update %q: %w", p, err)
	}
	if p == "" {
		done.Name = ""
	}
	return done, nil
}

// update replaces an entry that is still as it was read. A hard link's entry is
// compared as any of its names shows it.
func (c *Client) update(ctx context.Context, dir string, e storage.Entry) (storage.Entry, error) {
	o, ok := e.Origin.(origin)
	if !ok {
		return storage.Entry{}, storage.Errorf(storage.Invalid, "update of %s/%s without having read it", dir, e.Name)
	}
	w, err := c.send(ctx, dir, o.entry, toWire(e))
	if err != nil {
		return storage.Entry{}, err
	}
	done := fromWire(w)
	if slices.ContainsFunc(w.GetChunks(), (*filerpb.FileChunk).GetIsChunkManifest) { // folded on the wire alone
		done.Chunks = e.Chunks
		done.Origin, done.Held = origin{w, e.Chunks, done.Size}, storage.Holds(&done)
	}
	return done, nil
}

// send replaces an entry by w, provided that the filer still holds was, and
// returns what it holds now.
func (c *Client) send(ctx context.Context, dir string, was, w *filerpb.Entry) (*filerpb.Entry, error) {
	condition := unchanged(was, w.GetName())
	stored := w
	err := c.call(ctx, func(ctx context.Context, attempt int) error {
		r, err := c.filer.UpdateEntry(ctx, &filerpb.UpdateEntryRequest{
			Directory: dir, Entry: w, Signatures: c.signatures(),
			Condition: condition,
		})
		err = classify(ctx, err)
		if attempt > 0 && (storage.Is(err, storage.Changed) || storage.Is(err, storage.NotFound)) {
			found, lookErr := c.unanswered(ctx, dir, was, w)
			if lookErr == nil && found != nil {
				stored = found
			}
			if lookErr != nil || found != nil {
				return lookErr
			}
		}
		// An update that changes nothing has no event.
		stored = asStored(r.GetMetadataEvent(), condition.GetClauses()[0].GetExpectedEntry())
		return err
	})
	return stored, err
}

// unanswered finds out whether an earlier attempt to put w in the place of was,
// which got no answer, was carried out: it returns what is there now if so, and
// nil if not. Where the entry is gone nobody can tell: kind Other.
func (c *Client) unanswered(ctx context.Context, dir string, was, w *filerpb.Entry) (*filerpb.Entry, error) {
	r, err := c.filer.LookupDirectoryEntry(ctx, &filerpb.LookupDirectoryEntryRequest{Directory: dir, Name: w.GetName()})
	if err != nil {
		return nil, storage.Errorf(storage.Other, "an update that was not answered may have been carried out: %w", err)
	}
	found := r.GetEntry()
	if sameEntry(found, w) {
		return found, nil
	}
	// Others may have changed it since. The mark that came with it stays.
	before, now := marksOf(was), marksOf(found)
	for _, m := range marksOf(w) {
		if !slices.Contains(before, m) && slices.Contains(now, m) {
			return found, nil
		}
	}
	return nil, nil
}

func marksOf(e *filerpb.Entry) []storage.Commit { return commitsFromWire(e.GetExtended()[marker]) }

// asStored returns an entry as the filer holds it from now on: it fills in what
// was left out, and a later condition compares with that. The event of a change
// has the ids of chunks as numbers alone, a look-up has them as text too.
func asStored(ev *filerpb.SubscribeMetadataResponse, otherwise *filerpb.Entry) *filerpb.Entry {
	e := ev.GetEventNotification().GetNewEntry()
	if e == nil {
		return otherwise
	}
	for _, c := range e.GetChunks() {
		if c.GetFileId() == "" && c.GetFid() != nil {
			c.FileId = string(chunkID(c))
		}
	}
	return e
}

// sameEntry compares two entries, whatever the filer has filled in.
func sameEntry(a, b *filerpb.Entry) bool {
	a, b = proto.CloneOf(a), proto.CloneOf(b)
	for _, e := range []*filerpb.Entry{a, b} {
		for _, c := range e.GetChunks() {
			c.Fid = nil
		}
	}
	m := proto.MarshalOptions{Deterministic: true}
	x, errX := m.Marshal(a)
	y, errY := m.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
