package seaweed

import (
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
