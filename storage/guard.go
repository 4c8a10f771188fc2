package storage

import (
	"context"
	"time"
)

// Guard is asked right before each call that changes a volume, by the adapter
// that makes the call, so that little time passes between the two.
type Guard interface {
	// Allow returns when a change may be sent, and by when it has to be answered or
	// given up. It may wait until ctx ends. Stale when this process must not change
	// the volume any more.
	Allow(ctx context.Context) (until time.Time, err error)
}

// Guarded puts a guard before a volume whose calls are over at once. An adapter
// that speaks to a network asks by itself, before each attempt.
func Guarded(v Volume, g Guard) Volume {
	v.Files = guardedFiles{v.Files, g}
	v.Orphans = guardedOrphans{v.Orphans, g}
	v.Chunks = guardedChunks{v.Chunks, g}
	return v
}

type guardedFiles struct {
	Files
	guard Guard
}

// Create implements Files.
func (f guardedFiles) Create(ctx context.Context, p Path, e Entry, sure bool) (Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return Entry{}, err
	}
	return f.Files.Create(ctx, p, e, sure)
}

// Update implements Files.
func (f guardedFiles) Update(ctx context.Context, p Path, e Entry) (Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return Entry{}, err
	}
	return f.Files.Update(ctx, p, e)
}

// Rename implements Files.
func (f guardedFiles) Rename(ctx context.Context, from, to Path, source Entry, target *Entry, orphan *Orphan) error {
	if _, err := f.guard.Allow(ctx); err != nil {
		return err
	}
	return f.Files.Rename(ctx, from, to, source, target, orphan)
}

// Remove implements Files.
func (f guardedFiles) Remove(ctx context.Context, p Path, e Entry, orphan *Orphan) error {
	if _, err := f.guard.Allow(ctx); err != nil {
		return err
	}
	return f.Files.Remove(ctx, p, e, orphan)
}

// BeginLink implements Files.
func (f guardedFiles) BeginLink(ctx context.Context, p Path, e Entry, op string) (Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return Entry{}, err
	}
	return f.Files.BeginLink(ctx, p, e, op)
}

// EndLink implements Files.
func (f guardedFiles) EndLink(ctx context.Context, from, to Path, e Entry, op string) (Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return Entry{}, err
	}
	return f.Files.EndLink(ctx, from, to, e, op)
}

// CancelLink implements Files.
func (f guardedFiles) CancelLink(ctx context.Context, p Path, e Entry, op string) (Entry, error) {
	if _, err := f.guard.Allow(ctx); err != nil {
		return Entry{}, err
	}
	return f.Files.CancelLink(ctx, p, e, op)
}

type guardedOrphans struct {
	all   Orphans
	guard Guard
}

// Orphans implements Orphans.
func (o guardedOrphans) Orphans(ctx context.Context, holder string) ([]Orphan, error) {
	return o.all.Orphans(ctx, holder)
}

// Holders implements Orphans.
func (o guardedOrphans) Holders(ctx context.Context) ([]string, error) { return o.all.Holders(ctx) }

// FreeOrphan implements Orphans.
func (o guardedOrphans) FreeOrphan(ctx context.Context, x Orphan) error {
	if _, err := o.guard.Allow(ctx); err != nil {
		return err
	}
	return o.all.FreeOrphan(ctx, x)
}

type guardedChunks struct {
	Chunks
	guard Guard
}

// Write implements Chunks.
func (c guardedChunks) Write(ctx context.Context, near Path, data []byte) (Chunk, error) {
	if _, err := c.guard.Allow(ctx); err != nil {
		return Chunk{}, err
	}
	return c.Chunks.Write(ctx, near, data)
}

// Delete implements Chunks.
func (c guardedChunks) Delete(ctx context.Context, ids []ChunkID) error {
	if _, err := c.guard.Allow(ctx); err != nil {
		return err
	}
	return c.Chunks.Delete(ctx, ids)
}
