package seaweed

import (
	"slices"
	"testing"

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
