package storage

import (
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Entry is one name in a bucket and what it stands for.
type Entry struct {
	// Name is the last element of the path; empty for the root of a bucket.
	Name string
	// Mode holds the type (fs.ModeDir, fs.ModeSymlink, fs.ModeNamedPipe, …), the
	// nine permission bits, and fs.ModeSetuid, fs.ModeSetgid, fs.ModeSticky.
	Mode fs.FileMode
	// UID and GID are the numbers stored with the entry.
	UID, GID uint32
	// Size in bytes. Holes count.
	Size int64
	// Mtime, Ctime, Atime and Btime (birth) are zero where the store knows none.
	Mtime, Ctime, Atime, Btime time.Time
	// Inode is the number stored with the entry. It is unique when Native is
	// set, else a hint: SeaweedFS makes it from the path and the second.
	Inode uint64
	// Native says that Holdfast wrote the entry's attributes. Others, made over
	// S3, carry no owner and no mode worth showing: the volume's defaults apply.
	Native bool
	// MIME is the media type that S3 answers, empty for the default.
	MIME string
	// MD5 of the whole content, 16 bytes, or nil when not known. S3 makes the
	// ETag from it, else from the chunks.
	MD5 []byte
	// Target of a symbolic link.
	Target string
	// Rdev is the device number of a device node.
	Rdev uint32
	// LinkID is shared by all names of a hard-linked file and empty for others;
	// Links is the number of these names (0 and 1 mean: one name).
	LinkID string
	Links  int
	// Linking are the links that were begun and not ended: Links counts them.
	Linking []string
	// Chunks of the content in no order; where they overlap the one with the
	// greatest Modified is seen, and of equals the later one in the list.
	Chunks []Chunk
	// Merged says, of an entry that is to be written, that its chunks are others
	// than those that were read and its bytes are not: what S3 calls the content by
	// stays.
	Merged bool
	// Inline is the content of a small file kept in the entry itself; there are
	// no chunks then.
	Inline []byte
	// Held are the bytes of content that the entry held when it was read, as Holds
	// counts them: like Origin it stays when a copy is changed.
	Held int64
	// Xattr are the extended attributes, by full name ("user.color").
	Xattr map[string][]byte
	// Commits says which writers have changed the entry, and by which commit
	// last; the newest is behind. It goes with Native: S3's overwriting drops it.
	Commits []Commit
	// Origin is the adapter's own form of the entry as read, and what a
	// conditional update is judged against. Only adapters look inside.
	Origin any
}

// Chunk is one immutable piece of content: ID is never written twice.
type Chunk struct {
	// ID names the stored bytes (SeaweedFS: "3,01637037d6").
	ID ChunkID
	// Offset in the file of the chunk's first byte, and the number of its bytes
	// that belong to the file from there. Bytes behind Size are cut off: a chunk
	// can lose its tail, never its head.
	Offset, Size int64
	// Modified orders overlapping chunks of one file: a counter (NextModified),
	// that others fill from their clock, in nanoseconds.
	Modified int64
	// MD5 of the content, 16 bytes, or nil when it is not known.
	MD5 []byte
	// Origin is the adapter's own form, carried along untouched.
	Origin any
}

// ChunkID names stored bytes for ever: a cached copy can never be outdated.
type ChunkID string

// Commit is the mark that a writer leaves in an entry that it changes. A writer
// that does not know whether a change of its was carried out, since the answer
// was lost or the process died, finds its mark there, whatever others have
// changed since.
type Commit struct {
	// Writer is drawn at random; Number grows with each commit of the writer.
	Writer, Number uint64
}

// maxCommits bounds the writers that are remembered. The one that has been quiet
// for longest is forgotten: it would have to wait for an answer while eight
// others commit to the same file.
const maxCommits = 8

// Committed returns the number of the last commit of a writer, 0 when there is
// none.
func (e *Entry) Committed(writer uint64) uint64 {
	for _, c := range e.Commits {
		if c.Writer == writer {
			return c.Number
		}
	}
	return 0
}

// Commit leaves the mark of a writer.
func (e *Entry) Commit(c Commit) {
	kept := make([]Commit, 0, len(e.Commits)+1)
	for _, o := range e.Commits {
		if o.Writer != c.Writer {
			kept = append(kept, o)
		}
	}
	kept = append(kept, c)
	e.Commits = kept[max(0, len(kept)-maxCommits):]
}

// IsDir reports whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.Mode.IsDir() }

// IsRegular reports whether the entry is a plain file.
func (e *Entry) IsRegular() bool { return e.Mode.IsRegular() }

// Clone returns a copy that shares no slice or map with e. Origin is shared:
// nobody changes it.
func (e *Entry) Clone() Entry {
	c := *e
	c.MD5 = slices.Clone(e.MD5)
	c.Linking = slices.Clone(e.Linking)
	c.Chunks = slices.Clone(e.Chunks)
	c.Inline = slices.Clone(e.Inline)
	c.Xattr = maps.Clone(e.Xattr)
	c.Commits = slices.Clone(e.Commits)
	return c
}
