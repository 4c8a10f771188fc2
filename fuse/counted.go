package fuse

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// countedFiles counts what we change ourselves: each change is made on the
// condition of what was there, so the difference is exact. What may have been
// carried out and may not is surveyed.
type countedFiles struct {
	storage.Files
	room *room
}

var _ storage.Files = countedFiles{}

// done counts a change that was answered.
func (f countedFiles) done(p storage.Path, was, now *storage.Entry, err error) {
	switch {
	case err == nil:
		f.room.changed(p, shareOf(was), shareOf(now), true)
	case unknown(err):
		f.room.missed()
	}
}

func shareOf(e *storage.Entry) *storage.Share {
	if e == nil {
		return nil
	}
	s := e.Share()
	return &s
}

// Create implements storage.Files.
func (f countedFiles) Create(ctx context.Context, p storage.Path, e storage.Entry, sure bool) (storage.Entry, error) {
	made, err := f.Files.Create(ctx, p, e, sure)
	f.done(p, nil, &made, err)
	return made, err
}

// Update implements storage.Files.
func (f countedFiles) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	now, err := f.Files.Update(ctx, p, e)
	f.done(p, &e, &now, err)
	return now, err
}

// Remove implements storage.Files. What becomes an orphan is counted by its node.
func (f countedFiles) Remove(ctx context.Context, p storage.Path, e storage.Entry, orphan *storage.Orphan) error {
	err := f.Files.Remove(ctx, p, e, orphan)
	f.done(p, &e, nil, err)
	return err
}

// Rename implements storage.Files.
func (f countedFiles) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, orphan *storage.Orphan) error {
	err := f.Files.Rename(ctx, from, to, source, target, orphan)
	same := from == to || target != nil && target.LinkID != "" && target.LinkID == source.LinkID
	switch {
	case err != nil && (source.IsDir() || unknown(err)): // a part may have been moved
		f.room.missed()
	case err != nil || same: // rename(2) does nothing
	case source.IsDir():
		f.room.movedTree()
	default:
		f.room.moved(from, to, shareOf(&source), shareOf(target), true)
	}
	return err
}

// BeginLink implements storage.Files.
func (f countedFiles) BeginLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	now, err := f.Files.BeginLink(ctx, p, e, op)
	f.done(p, &e, &now, err)
	return now, err
}

// EndLink implements storage.Files.
func (f countedFiles) EndLink(ctx context.Context, from, to storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	now, err := f.Files.EndLink(ctx, from, to, e, op)
	f.done(to, nil, &now, err)
	return now, err
}

// CancelLink implements storage.Files.
func (f countedFiles) CancelLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	now, err := f.Files.CancelLink(ctx, p, e, op)
	f.done(p, &e, &now, err)
	return now, err
}
