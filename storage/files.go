package storage

import (
	"context"
)

// Files is the name space of one bucket: what the file system stands on.
//
// Errors are classified. A context's own error passes untouched. An operation
// that failed with Unavailable may or may not have happened.
type Files interface {
	// Lookup returns the entry at p. NotFound when there is none. The root has
	// an empty Name.
	Lookup(ctx context.Context, p Path) (Entry, error)
	// List returns up to limit entries of directory p whose names are greater,
	// byte by byte, than after, in ascending order. Fewer than limit means that
	// these were the last. NotFound and NotDirectory where they apply.
	List(ctx context.Context, p Path, after string, limit int) ([]Entry, error)
	// Create makes a new entry at p; the last element of p is its name. Exists
	// when something is there, NotFound when the parent is missing and
	// NotDirectory when it is a file. The content of e is taken as it stands.
	Create(ctx context.Context, p Path, e Entry) (Entry, error)
	// Update replaces the entry at p by e, provided that it is still as e.Origin
	// remembers it: Changed when it is not, NotFound when it is gone. Chunks that
	// e no longer has are deleted in time.
	Update(ctx context.Context, p Path, e Entry) (Entry, error)
	// Rename moves the entry at from to to, and replaces what is there. Atomic
	// for files. NotFound, NotDirectory, IsDirectory, NotEmpty and Invalid (a
	// directory into itself) as in rename(2).
	Rename(ctx context.Context, from, to Path) error
	// Link makes to another name of the file at from and returns the entry with
	// its new count. Exists when to is taken.
	Link(ctx context.Context, from, to Path) (Entry, error)
	// Remove removes one name: NotFound when there is none, NotEmpty for a
	// directory with entries. keepData leaves the chunks of a last name alive;
	// the caller frees them later through Chunks.Delete.
	Remove(ctx context.Context, p Path, keepData bool) error
}

// Chunks stores and serves immutable content. Every coat of the data path (a
// cache, a fault injector) has the same methods.
type Chunks interface {
	// Write stores data under a new id and returns it with Size and MD5 set; the
	// caller gives it its Offset and Modified. near is the path of the file, for
	// placement rules.
	Write(ctx context.Context, near Path, data []byte) (Chunk, error)
	// Read fills b with the bytes of c from byte off of the chunk. It fills b
	// whole or returns an error: NotFound when the chunk is gone.
	Read(ctx context.Context, c Chunk, b []byte, off int64) error
	// Delete frees chunks. Those that do not exist are skipped.
	Delete(ctx context.Context, ids []ChunkID) error
}

// Event is one change of a name by somebody else: what is done through the same
// Volume is not told.
type Event struct {
	// Old is where an entry was, New where it is: a creation has no Old, a
	// removal no New, a change of attributes or content has both the same.
	Old, New *Place
}

// Place is a path and the inode number found there.
type Place struct {
	Path  Path
	Inode uint64
}

// Watcher tells of changes.
type Watcher interface {
	// Watch calls ready once it is subscribed and each for every change from then
	// on, in order, until ctx ends or the connection breaks; it always returns an
	// error. What happened while nobody watched is not told: the caller doubts
	// all that it has cached, each time ready is called.
	Watch(ctx context.Context, ready func(), each func(Event)) error
}

// Space is what the store as a whole can take, in bytes, one copy of the data.
type Space struct {
	Total, Free int64
}

// Volume is all that a mounted bucket needs: names, content, changes.
type Volume struct {
	Files   Files
	Chunks  Chunks
	Watcher Watcher
	Meter   Meter
}

// Usage of one volume, in bytes.
type Usage struct {
	// Used is what the content takes, as the store last counted it. SeaweedFS's
	// master is told by its volume servers about once a minute.
	Used int64
	// Capacity is the size of the volume.
	Capacity int64
}

// Meter measures one volume.
type Meter interface {
	// Usage of the volume. Never zero because a measurement failed: it returns an
	// error then.
	Usage(ctx context.Context) (Usage, error)
}
