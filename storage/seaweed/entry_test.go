package seaweed

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// TestCutChunkHasNoETag: the ETag of a chunk that lost its tail was that of the
// whole; one that is no MD5 is somebody else's, and stays.
func TestCutChunkHasNoETag(t *testing.T) {
	for was, want := range map[string]string{"XrY7u+Ae7tCTyyK7j1rNww==": "", "1b2c": "1b2c"} {
		c := chunkFromWire(&filerpb.FileChunk{FileId: "3,01637037d6", Size: 11, ETag: was})
		if whole := chunkToWire(c); whole.GetETag() != was {
			t.Errorf("ETag %q became %q", was, whole.GetETag())
		}
		if cut := chunkToWire(storage.Cut([]storage.Chunk{c}, 5)[0]); cut.GetETag() != want || cut.GetSize() != 5 {
			t.Errorf("cut: %v, want ETag %q", cut, want)
		}
	}
}

// TestMergingKeepsETag: the bytes are the same, so what S3 calls them is, too.
func TestMergingKeepsETag(t *testing.T) {
	e := storage.Entry{Mode: 0o644, Native: true, Size: 10, Chunks: []storage.Chunk{{ID: "1,1", Size: 5, Modified: 1}, {ID: "1,2", Offset: 5, Size: 5, Modified: 2}}}
	read := fromWire(toWire(e))
	was := toWire(read).GetExtended()[s3ETag]
	read.Chunks = []storage.Chunk{{ID: "1,3", Size: 10, Modified: 3}}
	if other := toWire(read); string(other.GetExtended()[s3ETag]) == string(was) {
		t.Errorf("another content has the same ETag %q", was)
	}
	read.Merged = true
	w := toWire(read)
	if got := w.GetExtended()[s3ETag]; len(was) == 0 || string(got) != string(was) || w.GetChunks()[0].GetFileId() != "1,3" {
		t.Errorf("ETag %q became %q", was, got)
	}
	if fromWire(w).Merged {
		t.Error("what was read is to be merged")
	}
}

// TestMarkerIsText: the S3 gateway answers the marker as a header, and a header of
// other bytes breaks every GET of the object.
func TestMarkerIsText(t *testing.T) {
	commits := []storage.Commit{{Writer: 1<<64 - 1, Number: 10}, {Writer: 7, Number: 1 << 63}}
	mark := markerOf(commits)
	for _, c := range mark {
		if c < ' ' || c > '~' {
			t.Fatalf("marker %q", mark)
		}
	}
	if got := commitsFromWire(mark); !slices.Equal(got, commits) {
		t.Errorf("%q is read as %v", mark, got)
	}
}

// TestToWireLeavesOrigin: what an entry was read as is the condition of its change,
// so it stays as it is, with fields that we do not know, also while messages made
// from it share its chunks.
func TestToWireLeavesOrigin(t *testing.T) {
	read := &filerpb.Entry{
		Name: "f", Attributes: &filerpb.FuseAttributes{FileSize: 15, FileMode: 0o644, Mtime: 7},
		Extended: map[string][]byte{marker: []byte("1"), xattrPrefix + "user.a": {1}, "foreign": {2}},
	}
	for i := range int64(3) {
		read.Chunks = append(read.Chunks, &filerpb.FileChunk{FileId: "3,01637037d6", Offset: 5 * i, Size: 5, ModifiedTsNs: i + 1})
	}
	read.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 42))
	read.Chunks[1].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 43))
	before := proto.CloneOf(read)
	e := fromWire(read)
	e.Xattr["user.a"], e.Size, e.Mode, e.Native = []byte{9}, 12, 0o600, false
	e.Chunks = append(storage.Cut(e.Chunks, 12)[1:], storage.Chunk{ID: "3,99637037d6", Size: 5, Modified: 9})
	w := toWire(e)
	if !proto.Equal(read, before) {
		t.Errorf("what was read became %v", read)
	}
	if c := w.GetChunks(); len(c) != 3 || c[0] != read.GetChunks()[1] || c[1].GetSize() != 2 || c[2].GetFileId() != "3,99637037d6" {
		t.Errorf("chunks %v", c)
	}
	if string(w.ProtoReflect().GetUnknown()) != string(before.ProtoReflect().GetUnknown()) || w.GetExtended()["foreign"] == nil {
		t.Errorf("what we do not know is lost: %v", w)
	}
	if c := unchanged(read, "g").GetClauses()[0].GetExpectedEntry(); c.GetName() != "g" || read.GetName() != "f" || len(c.GetChunks()) != 3 {
		t.Errorf("condition %v of %v", c, read)
	}
}
