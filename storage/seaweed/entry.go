package seaweed

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// An entry on the wire is turned into ours and back here. What we do not know of
// it (S3's metadata, unknown fields) is kept in Origin and sent back untouched,
// except for what describes a content that has changed.

const (
	// marker in Extended says that Holdfast wrote the attributes: S3's
	// overwriting drops it together with owner and mode.
	marker = "holdfast"
	// xattrPrefix in Extended, the one that weed's own mount uses.
	xattrPrefix = "xattr-"
	// linking in Extended holds storage.Entry.Linking, one to a line.
	linking = "holdfast-linking"
	// s3ETag in Extended is what the gateway answers before it looks at MD5 and
	// chunks.
	s3ETag = "Seaweed-X-Amz-ETag"
	// s3Versioning on a bucket says whether it keeps old versions.
	s3Versioning = "Seaweed-X-Amz-Versioning"
	// s3AllowEmpty on a bucket keeps the filer from deleting empty folders.
	s3AllowEmpty = "Seaweed-X-Amz-Allow-Empty-Folders"
)

// stale lists what S3 keeps of a content; an update of the content drops it.
var stale = []string{
	s3ETag,
	"x-seaweedfs-checksum-algorithm", "x-seaweedfs-checksum-value", "x-seaweedfs-checksum-type",
	"X-Seaweedfs-Multipart-Parts-Count", "X-Seaweedfs-Multipart-Part-Boundaries",
}

// origin is what storage.Entry.Origin holds: the entry as read, and its chunks
// with manifests unfolded.
type origin struct {
	entry  *filerpb.Entry
	chunks []storage.Chunk
	size   int64
}

// fromWire turns an entry into ours. Chunks are as they stand: resolve
// manifests before.
func fromWire(w *filerpb.Entry) storage.Entry {
	a := w.GetAttributes()
	e := storage.Entry{
		Name: w.GetName(), Mode: fs.FileMode(a.GetFileMode()), UID: a.GetUid(), GID: a.GetGid(),
		Size: int64(a.GetFileSize()), Inode: a.GetInode(), MIME: a.GetMime(), MD5: a.GetMd5(),
		Target: a.GetSymlinkTarget(), Rdev: a.GetRdev(), Inline: w.GetContent(),
		Mtime: instant(a.GetMtime(), a.GetMtimeNs()), Ctime: instant(a.GetCtime(), a.GetCtimeNs()),
		Atime: instant(a.GetAtime(), a.GetAtimeNs()), Btime: instant(a.GetCrtime(), a.GetCrtimeNs()),
		LinkID: string(w.GetHardLinkId()), Links: int(w.GetHardLinkCounter()),
	}
	if w.GetIsDirectory() {
		e.Mode |= fs.ModeDir
		e.Size = 0
	}
	if e.Ctime.IsZero() {
		e.Ctime = e.Mtime
	}
	mark, native := w.GetExtended()[marker]
	e.Native, e.Commits = native, commitsFromWire(mark)
	if ops := w.GetExtended()[linking]; len(ops) > 0 {
		e.Linking = strings.Split(string(ops), "\n")
	}
	for k, v := range w.GetExtended() {
		if name, ok := strings.CutPrefix(k, xattrPrefix); ok {
			if e.Xattr == nil {
				e.Xattr = map[string][]byte{}
			}
			e.Xattr[name] = v
		}
	}
	end := int64(0)
	for _, c := range w.GetChunks() {
		e.Chunks = append(e.Chunks, chunkFromWire(c))
		end = max(end, c.GetOffset()+int64(c.GetSize()))
	}
	if e.IsRegular() && e.Size == 0 { // written by something that sets no size
		e.Size = max(end, int64(len(e.Inline)))
	}
	e.Origin, e.Held = origin{w, e.Chunks, e.Size}, storage.Holds(&e)
	return e
}

func chunkFromWire(c *filerpb.FileChunk) storage.Chunk {
	sum, err := base64.StdEncoding.DecodeString(c.GetETag())
	if err != nil || len(sum) != md5.Size {
		sum = nil
	}
	return storage.Chunk{
		ID: chunkID(c), Offset: c.GetOffset(), Size: int64(c.GetSize()),
		Modified: c.GetModifiedTsNs(), MD5: sum, Origin: c,
	}
}

// instant clamps the times before 1970 that the filer gives to folders made on
// the way.
func instant(sec int64, ns int32) time.Time {
	if sec <= 0 {
		return time.Time{}
	}
	return time.Unix(sec, int64(ns))
}

// toWire turns e into the wire's form, starting from what it was read as.
func toWire(e storage.Entry) *filerpb.Entry {
	w := &filerpb.Entry{}
	changed := true
	if o, ok := e.Origin.(origin); ok && o.entry != nil {
		w = beside(o.entry)
		changed = !sameContent(o, e)
	}
	w.Name, w.IsDirectory, w.Content = e.Name, e.IsDir(), e.Inline
	if w.Attributes == nil {
		w.Attributes = &filerpb.FuseAttributes{}
	}
	a := w.Attributes
	a.FileMode, a.Uid, a.Gid = uint32(e.Mode), e.UID, e.GID
	a.FileSize, a.Inode, a.Mime = uint64(e.Size), e.Inode, e.MIME
	a.SymlinkTarget, a.Rdev, a.Md5 = e.Target, e.Rdev, e.MD5
	a.Mtime, a.MtimeNs = wireTime(e.Mtime)
	a.Ctime, a.CtimeNs = wireTime(e.Ctime)
	a.Atime, a.AtimeNs = wireTime(e.Atime)
	a.Crtime, a.CrtimeNs = wireTime(e.Btime)
	w.HardLinkId, w.HardLinkCounter = []byte(e.LinkID), int32(e.Links)
	if e.LinkID == "" {
		w.HardLinkId, w.HardLinkCounter = nil, 0
	}
	if changed {
		w.Chunks = make([]*filerpb.FileChunk, 0, len(e.Chunks))
		for _, c := range e.Chunks {
			w.Chunks = append(w.Chunks, chunkToWire(c))
		}
	}
	extended(w, e, changed && !e.Merged)
	return w
}

// beside returns an entry like e to be changed: its attributes are its own, all else
// is to be replaced, not changed. A chunk is nobody's to change once it was read or
// sent; copying each of them took a fifth of a commit here.
func beside(e *filerpb.Entry) *filerpb.Entry {
	w := &filerpb.Entry{}
	from, to := e.ProtoReflect(), w.ProtoReflect()
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(f, v)
		return true
	})
	to.SetUnknown(from.GetUnknown())
	w.Attributes = proto.CloneOf(e.GetAttributes())
	return w
}

func wireTime(t time.Time) (int64, int32) {
	if t.IsZero() {
		return 0, 0
	}
	return t.Unix(), int32(t.Nanosecond())
}

func chunkToWire(c storage.Chunk) *filerpb.FileChunk {
	o, read := c.Origin.(*filerpb.FileChunk)
	tag := o.GetETag()
	switch {
	case c.MD5 != nil:
		tag = base64.StdEncoding.EncodeToString(c.MD5)
	case tag != "" && chunkFromWire(o).MD5 != nil: // of the bytes that were cut off, too
		tag = ""
	}
	w := &filerpb.FileChunk{FileId: string(c.ID)}
	if read {
		if o.GetOffset() == c.Offset && o.GetSize() == uint64(c.Size) && o.GetModifiedTsNs() == c.Modified && o.GetETag() == tag {
			return o
		}
		w = proto.CloneOf(o)
	}
	w.Offset, w.Size, w.ModifiedTsNs, w.ETag = c.Offset, uint64(c.Size), c.Modified, tag
	return w
}

// sameContent compares e with what it was read as.
func sameContent(o origin, e storage.Entry) bool {
	if o.size != e.Size || string(o.entry.GetContent()) != string(e.Inline) {
		return false
	}
	return slices.EqualFunc(o.chunks, e.Chunks, func(a, b storage.Chunk) bool {
		return a.ID == b.ID && a.Offset == b.Offset && a.Size == b.Size
	})
}

// extended renews what Holdfast owns of the extended attributes.
func extended(w *filerpb.Entry, e storage.Entry, changed bool) {
	ext := map[string][]byte{}
	for k, v := range w.GetExtended() {
		if !strings.HasPrefix(k, xattrPrefix) && k != marker && k != linking {
			ext[k] = v
		}
	}
	if changed {
		for _, k := range stale {
			delete(ext, k)
		}
		if e.IsRegular() && e.MD5 == nil && len(e.Chunks) > 0 {
			ext[s3ETag] = []byte(compositeETag(e))
		}
	}
	for k, v := range e.Xattr {
		ext[xattrPrefix+k] = v
	}
	if len(e.Linking) > 0 {
		ext[linking] = []byte(strings.Join(e.Linking, "\n"))
	}
	if e.Native {
		ext[marker] = markerOf(e.Commits)
	}
	w.Extended = ext
}

// markerOf is the value of the marker: a version, then one word for each writer.
// It is text, since the S3 gateway answers it as a header.
func markerOf(commits []storage.Commit) []byte {
	b := []byte("1")
	for _, c := range commits {
		b = fmt.Appendf(b, " %x-%x", c.Writer, c.Number)
	}
	return b
}

// commitsFromWire is the reverse.
func commitsFromWire(mark []byte) []storage.Commit {
	words := strings.Fields(string(mark))
	if len(words) < 2 || words[0] != "1" {
		return nil
	}
	commits := make([]storage.Commit, 0, len(words)-1)
	for _, w := range words[1:] {
		writer, number, _ := strings.Cut(w, "-")
		x, errX := strconv.ParseUint(writer, 16, 64)
		n, errN := strconv.ParseUint(number, 16, 64)
		if errX == nil && errN == nil {
			commits = append(commits, storage.Commit{Writer: x, Number: n})
		}
	}
	return commits
}

// compositeETag is an ETag of the multipart form, md5-N, for a content whose MD5
// is not known. It differs whenever the layout does.
func compositeETag(e storage.Entry) string {
	h := md5.New()
	var n [16]byte
	for _, c := range e.Chunks {
		binary.LittleEndian.PutUint64(n[:], uint64(c.Offset))
		binary.LittleEndian.PutUint64(n[8:], uint64(c.Size))
		h.Write(n[:])
		h.Write(c.MD5)
		h.Write([]byte(c.ID))
	}
	binary.LittleEndian.PutUint64(n[:], uint64(e.Size))
	h.Write(n[:8])
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(e.Chunks))
}
