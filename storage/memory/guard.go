package memory

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// Guarded puts a guard before a volume whose calls are over at once. An adapter
// that speaks to a network asks by itself, before each attempt.
func Guarded(v storage.Volume, g storage.Guard) storage.Volume {
	v.Files = guardedFiles{v.Files, g}
	v.Orphans = guardedOrphans{v.Orphans, g}
	v.Chunks = guardedChunks{v.Chunks, g}
	return v
}

type guardedFiles struct {
	storage.Files
	guard storage.Guard
}

// Create implements storage.Files.
func (f guardedFiles) Create(ctx context.Context, p storage.Path, e storage.Entry, sure bool) (storage.Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return storage.Entry{}, err
	}
	return f.Files.Create(ctx, p, e, sure)
}

// Update implements storage.Files.
func (f guardedFiles) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return storage.Entry{}, err
	}
	return f.Files.Update(ctx, p, e)
}

// Rename implements storage.Files.
func (f guardedFiles) Rename(ctx context.Context, from, to storage.Path, source storage.Entry, target *storage.Entry, orphan *storage.Orphan) error {
	if _, err := f.guard.Allow(ctx); err != nil {
		return err
	}
	return f.Files.Rename(ctx, from, to, source, target, orphan)
}

// Remove implements storage.Files.
func (f guardedFiles) Remove(ctx context.Context, p storage.Path, e storage.Entry, orphan *storage.Orphan) error {
	if _, err := f.guard.Allow(ctx); err != nil {
		return err
	}
	return f.Files.Remove(ctx, p, e, orphan)
}

// BeginLink implements storage.Files.
func (f guardedFiles) BeginLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return storage.Entry{}, err
	}
	return f.Files.BeginLink(ctx, p, e, op)
}

// EndLink implements storage.Files.
func (f guardedFiles) EndLink(ctx context.Context, from, to storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return storage.Entry{}, err
	}
	return f.Files.EndLink(ctx, from, to, e, op)
}

// CancelLink implements storage.Files.
func (f guardedFiles) CancelLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return storage.Entry{}, err
	}
	return f.Files.CancelLink(ctx, p, e, op)
}

type guardedOrphans struct {
	all   storage.Orphans
	guard storage.Guard
}

// Orphans implements storage.Orphans.
func (o guardedOrphans) Orphans(ctx context.Context, holder string) ([]storage.Orphan, error) {
	return o.all.Orphans(ctx, holder)
}

// Holders implements storage.Orphans.
func (o guardedOrphans) Holders(ctx context.Context) ([]string, error) { return o.all.Holders(ctx) }

// FreeOrphan implements storage.Orphans.
func (o guardedOrphans) FreeOrphan(ctx context.Context, x storage.Orphan) error {
	if _, err := o.guard.Allow(ctx); err != nil {
		return err
	}
	return o.all.FreeOrphan(ctx, x)
}

type guardedChunks struct {
	storage.Chunks
	guard storage.Guard
}

// Write implements storage.Chunks.
func (c guardedChunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	if _, err := c.guard.Allow(ctx); err != nil {
		return storage.Chunk{}, err
	}
	return c.Chunks.Write(ctx, near, data)
}

// Delete implements storage.Chunks.
func (c guardedChunks) Delete(ctx context.Context, ids []storage.ChunkID) error {
	if _, err := c.guard.Allow(ctx); err != nil {
		return err
	}
	return c.Chunks.Delete(ctx, ids)
}
