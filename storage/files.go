package storage

import (
	"context"
)

// Files is the name space of one bucket, or of a folder of one: what the file
// system stands on.
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
	// NotDirectory when it is a file: unless the caller is sure that the parent is
	// a directory, since it hears of every change; it is not looked at then, and
	// may come back when somebody has just removed it. The content of e is taken
	// as it stands.
	Create(ctx context.Context, p Path, e Entry, sure bool) (Entry, error)
	// Update replaces the entry at p by e, provided that it is still as e.Origin
	// remembers it: Changed when it is not, NotFound when it is gone. Chunks that
	// e no longer has are deleted in time.
	Update(ctx context.Context, p Path, e Entry) (Entry, error)
	// Rename moves source, the entry at from, to to, in the place of target, the
	// entry that is there, or nil. Changed when one of the names stands for
	// something else by now, or its entry is not as source and target remember it;
	// nothing was moved then. NotFound, NotDirectory, IsDirectory, NotEmpty and
	// Invalid (a directory into itself) as in rename(2). Two names of one file stay
	// both. orphan is where a target goes that loses its last name, as in Remove.
	//
	// Atomic for files, but for the filer's own death. A directory is moved child
	// by child: what died midway is finished by moving the rest the same way.
	Rename(ctx context.Context, from, to Path, source Entry, target *Entry, orphan *Orphan) error
	// Remove removes the name p of e: NotFound when there is no such name, Changed
	// when its entry is not as e.Origin remembers it, NotEmpty for a directory with
	// entries. The chunks of a last name are freed, unless orphan says where they
	// are held. Without an orphan a file may go whose content is as e.Origin
	// remembers it, whatever else of its entry has changed.
	Remove(ctx context.Context, p Path, e Entry, orphan *Orphan) error

	// A hard link is made in two steps, so that whoever finds it half done can
	// finish it or take it back.

	// BeginLink counts one more name of the file e at p and writes op, which the
	// caller makes unique, into its Linking. Changed and NotFound as in Update;
	// NotPermitted for a directory, TooManyLinks at the limit.
	BeginLink(ctx context.Context, p Path, e Entry, op string) (Entry, error)
	// EndLink makes the name to of the file e, which is at from, and takes op out
	// of its Linking. Exists when to is taken, Changed when from is another file by
	// now or op was taken back; NotFound and NotDirectory as in Create.
	EndLink(ctx context.Context, from, to Path, e Entry, op string) (Entry, error)
	// CancelLink takes a BeginLink back. It changes nothing when op is not in
	// Linking.
	CancelLink(ctx context.Context, p Path, e Entry, op string) (Entry, error)
}

// Orphan names a file without a name, whose content is held for the handles that
// are open. It is written down in the same step that takes the last name away,
// so that the content can be freed when its holder has died.
type Orphan struct {
	// Holder is one mount of the volume on one node.
	Holder string
	// ID is the holder's own.
	ID uint64
}

// Orphans knows the files without a name.
type Orphans interface {
	// FreeOrphan frees the content of one. It changes nothing when there is none.
	FreeOrphan(ctx context.Context, o Orphan) error
	// Orphans lists those of a holder.
	Orphans(ctx context.Context, holder string) ([]Orphan, error)
	// Holders lists who holds any, or has held.
	Holders(ctx context.Context) ([]string, error)
}

// Chunks stores and serves immutable content. Every coat of the data path (a
// cache, a fault injector) has the same methods.
type Chunks interface {
	// Write stores data under a new id and returns it with Size set; the caller
	// gives it its Offset and Modified, and an MD5 where it wants one: what is
	// stored is checked by a cheaper sum. near is the path of the file, for
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

// Place is a path, and the inode number and the share of the content found there.
type Place struct {
	Path  Path
	Inode uint64
	Share Share
}

// PlaceOf returns the place of an entry.
func PlaceOf(p Path, e *Entry) *Place { return &Place{Path: p, Inode: e.Inode, Share: e.Share()} }

// Watcher tells of changes.
type Watcher interface {
	// Watch calls ready once it is subscribed and each for every change from then
	// on, in order, until ctx ends or the connection breaks; it always returns an
	// error. What happened while nobody watched is not told: the caller doubts
	// all that it has cached, each time ready is called. A directory that moves is
	// told of with all that is in it.
	Watch(ctx context.Context, ready func(), each func(Event)) error
}

// Space is what the store as a whole can take, in bytes, one copy of the data.
type Space struct {
	Total, Free int64
}

// Volume is all that a mounted bucket needs: names, content, changes.
type Volume struct {
	Files   Files
	Orphans Orphans
	Chunks  Chunks
	Watcher Watcher
	Meter   Meter
}

// Usage of one volume, in bytes.
type Usage struct {
	// Used is what the content takes. Of a Meter: as the store last counted it, with
	// what is deleted and not cleaned up; SeaweedFS's master is told by its volume
	// servers about once a minute.
	Used int64
	// Capacity is the size of the volume.
	Capacity int64
}

// Meter measures one volume.
type Meter interface {
	// Usage of the volume. Never zero because a measurement failed: it returns an
	// error then.
	Usage(ctx context.Context) (Usage, error)
	// Size of the volume in bytes, as of now: it grows when the volume is expanded.
	Size(ctx context.Context) (int64, error)
}
