package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// Rename, links and removal: what changes names and not what they stand for.

// sameLocked returns the file at p, provided that it is still as e remembers it.
func (b *Bucket) sameLocked(p storage.Path, e storage.Entry) (*file, error) {
	f, err := b.getLocked(p)
	if err != nil {
		return nil, err
	}
	o, ok := e.Origin.(origin)
	if !ok {
		return nil, storage.Errorf(storage.Invalid, "%q: changed without having been read", p)
	}
	if o.version != f.version {
		return nil, storage.Errorf(storage.Changed, "%q: changed meanwhile", p)
	}
	return f, nil
}

// Rename implements storage.Files.
func (h *Handle) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, orphan *storage.Orphan) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.sameLocked(from, source)
	if err != nil {
		return err
	}
	if err := h.b.parentLocked(to); err != nil {
		return err
	}
	if from != to && to.Within(from) {
		return storage.Errorf(storage.Invalid, "%q: a directory cannot move into itself", from)
	}
	t, there := h.b.mu.entries[to]
	if there != (target != nil) {
		return storage.Errorf(storage.Changed, "%q: changed meanwhile", to)
	}
	if there {
		if _, err := h.b.sameLocked(to, *target); err != nil {
			return err
		}
		switch {
		case t == f:
			return nil
		case t.entry.IsDir() && !f.entry.IsDir():
			return storage.Errorf(storage.IsDirectory, "%q: is a directory", to)
		case !t.entry.IsDir() && f.entry.IsDir():
			return storage.Errorf(storage.NotDirectory, "%q: not a directory", to)
		case h.b.hasChildLocked(to):
			return storage.Errorf(storage.NotEmpty, "%q: not empty", to)
		}
		gone := h.b.showLocked(to, t)
		h.b.unlinkLocked(to, t, orphan)
		h.tellLocked(storage.Event{Old: storage.PlaceOf(to, &gone)})
	}
	moved := map[storage.Path]*file{}
	for q, child := range h.b.mu.entries {
		if q.Within(from) {
			moved[q] = child
		}
	}
	for q, child := range moved {
		dest := to + q[len(from):]
		delete(h.b.mu.entries, q)
		h.b.mu.entries[dest] = child
		e := h.b.showLocked(dest, child)
		h.tellLocked(storage.Event{Old: storage.PlaceOf(q, &e), New: storage.PlaceOf(dest, &e)})
	}
	return nil
}

// BeginLink implements storage.Files.
func (h *Handle) BeginLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.sameLocked(p, e)
	if err != nil {
		return storage.Entry{}, err
	}
	if f.entry.IsDir() {
		return storage.Entry{}, storage.Errorf(storage.NotPermitted, "%q: a directory has one name", p)
	}
	was := h.b.showLocked(p, f)
	if f.entry.LinkID == "" {
		f.entry.LinkID, f.entry.Links = fmt.Sprintf("link-%d", h.b.nextLocked()), 1
	}
	f.entry.Links++
	f.entry.Linking = append(slices.Clone(f.entry.Linking), op)
	return h.changedLocked(p, was, f), nil
}

// EndLink implements storage.Files.
func (h *Handle) EndLink(ctx context.Context, from, to storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.getLocked(from)
	if err != nil {
		return storage.Entry{}, err
	}
	if f.entry.LinkID == "" || f.entry.LinkID != e.LinkID || !slices.Contains(f.entry.Linking, op) {
		return storage.Entry{}, storage.Errorf(storage.Changed, "%q: no link of it was begun", from)
	}
	if err := h.b.parentLocked(to); err != nil {
		return storage.Entry{}, err
	}
	if _, ok := h.b.mu.entries[to]; ok {
		return storage.Entry{}, storage.Errorf(storage.Exists, "%q: exists", to)
	}
	f.entry.Linking = without(f.entry.Linking, op)
	f.version = h.b.nextLocked()
	h.b.mu.entries[to] = f
	made := h.b.showLocked(to, f)
	h.tellLocked(storage.Event{New: storage.PlaceOf(to, &made)})
	return made, nil
}

// CancelLink implements storage.Files.
func (h *Handle) CancelLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.sameLocked(p, e)
	if err != nil {
		return storage.Entry{}, err
	}
	if !slices.Contains(f.entry.Linking, op) {
		return h.b.showLocked(p, f), nil
	}
	was := h.b.showLocked(p, f)
	f.entry.Links--
	f.entry.Linking = without(f.entry.Linking, op)
	return h.changedLocked(p, was, f), nil
}

// changedLocked gives f, which was as said, a new version, tells of it and shows it.
func (h *Handle) changedLocked(p storage.Path, was storage.Entry, f *file) storage.Entry {
	f.version = h.b.nextLocked()
	now := h.b.showLocked(p, f)
	h.tellLocked(storage.Event{Old: storage.PlaceOf(p, &was), New: storage.PlaceOf(p, &now)})
	return now
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}

// Remove implements storage.Files.
func (h *Handle) Remove(ctx context.Context, p storage.Path, e storage.Entry, orphan *storage.Orphan) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if p == "" {
		return storage.Errorf(storage.InUse, "the root of a volume cannot be removed")
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.sameLocked(p, e)
	if err != nil {
		return err
	}
	if f.entry.IsDir() && h.b.hasChildLocked(p) {
		return storage.Errorf(storage.NotEmpty, "%q: not empty", p)
	}
	gone := h.b.showLocked(p, f)
	h.b.unlinkLocked(p, f, orphan)
	h.tellLocked(storage.Event{Old: storage.PlaceOf(p, &gone)})
	return nil
}

func (b *Bucket) hasChildLocked(p storage.Path) bool {
	for q := range b.mu.entries {
		if q != p && q.Within(p) {
			return true
		}
	}
	return false
}

// unlinkLocked takes one name away, and the content with the last one.
func (b *Bucket) unlinkLocked(p storage.Path, f *file, orphan *storage.Orphan) {
	delete(b.mu.entries, p)
	if f.entry.LinkID != "" {
		f.entry.Links--
		f.version = b.nextLocked()
		if f.entry.Links > 0 {
			return
		}
	}
	if orphan == nil {
		b.dropLocked(f.entry, storage.Entry{})
		return
	}
	b.mu.orphans[*orphan] = f.entry
}

// FreeOrphan implements storage.Orphans.
func (h *Handle) FreeOrphan(ctx context.Context, o storage.Orphan) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if e, ok := h.b.mu.orphans[o]; ok {
		h.b.dropLocked(e, storage.Entry{})
		delete(h.b.mu.orphans, o)
	}
	return nil
}

// Orphans implements storage.Orphans.
func (h *Handle) Orphans(ctx context.Context, holder string) ([]storage.Orphan, error) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	var found []storage.Orphan
	for o := range h.b.mu.orphans {
		if o.Holder == holder {
			found = append(found, o)
		}
	}
	return found, ctx.Err()
}

// Holders implements storage.Orphans.
func (h *Handle) Holders(ctx context.Context) ([]string, error) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	var found []string
	for o := range h.b.mu.orphans {
		if !slices.Contains(found, o.Holder) {
			found = append(found, o.Holder)
		}
	}
	return found, ctx.Err()
}
