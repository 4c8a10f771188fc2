package seaweed

import (
	"context"
	"path"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// dying is a filer that dies once, after so many mutations of a transaction.
type dying struct {
	filerpb.SeaweedFilerClient
	entries map[string]*filerpb.Entry
	freed   map[string]bool
	after   int
}

func (d *dying) LookupDirectoryEntry(_ context.Context, in *filerpb.LookupDirectoryEntryRequest, _ ...grpc.CallOption) (*filerpb.LookupDirectoryEntryResponse, error) {
	e := d.entries[path.Join(in.GetDirectory(), in.GetName())]
	if e == nil {
		return nil, status.Error(codes.NotFound, "no entry is found in filer store")
	}
	return &filerpb.LookupDirectoryEntryResponse{Entry: proto.CloneOf(e)}, nil
}

func (d *dying) ObjectTransaction(_ context.Context, in *filerpb.ObjectTransactionRequest, _ ...grpc.CallOption) (*filerpb.ObjectTransactionResponse, error) {
	now := d.entries[in.GetLockKey()]
	if now == nil || !sameEntry(now, in.GetCondition().GetClauses()[0].GetExpectedEntry()) {
		return &filerpb.ObjectTransactionResponse{ErrorCode: filerpb.FilerError_PRECONDITION_FAILED}, nil
	}
	for _, m := range in.GetMutations() {
		if d.after--; d.after == -1 {
			return nil, status.Error(codes.Unavailable, "died")
		}
		p := path.Join(m.GetDirectory(), m.GetName())
		if m.GetType() == filerpb.ObjectMutation_PUT {
			d.entries[path.Join(m.GetDirectory(), m.GetEntry().GetName())] = proto.CloneOf(m.GetEntry())
			continue
		}
		if e := d.entries[p]; e != nil && m.GetIsDeleteData() && len(e.GetHardLinkId()) == 0 {
			for _, c := range e.GetChunks() {
				d.freed[c.GetFileId()] = true
			}
		}
		delete(d.entries, p)
	}
	if d.after == 0 { // all is done, and nobody hears of it
		d.after = -1
		return nil, status.Error(codes.Unavailable, "died")
	}
	return &filerpb.ObjectTransactionResponse{}, nil
}

// TestSwapCutShort: a file is put in the place of one that has other names, and the
// filer dies between two steps. The file keeps its chunks and has one name.
func TestSwapCutShort(t *testing.T) {
	for after := range 4 {
		file := func(name string, inode uint64, chunk string) *filerpb.Entry {
			return &filerpb.Entry{
				Name: name, Attributes: &filerpb.FuseAttributes{Inode: inode, FileMode: 0o644},
				Chunks: []*filerpb.FileChunk{{FileId: chunk, Size: 1}},
			}
		}
		linked := file("to", 8, "1,02000000aa")
		linked.HardLinkId, linked.HardLinkCounter = []byte("link"), 2
		d := &dying{after: after, freed: map[string]bool{}, entries: map[string]*filerpb.Entry{
			"/buckets/b":      {Name: "b", IsDirectory: true},
			"/buckets/b/from": file("from", 7, "1,01000000aa"),
			"/buckets/b/to":   linked,
		}}
		b := &bucket{Client: &Client{filer: d, timeout: 5 * time.Second}, root: "/buckets/b"}
		source, err := b.Lookup(t.Context(), "from")
		if err != nil {
			t.Fatal(err)
		}
		target, err := b.Lookup(t.Context(), "to")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Rename(t.Context(), "from", "to", source, &target, nil); err != nil {
			t.Errorf("after %d steps: %v", after, err)
		}
		if d.freed["1,01000000aa"] {
			t.Errorf("after %d steps: the chunk of the file that moves was freed", after)
		}
		if _, err := b.Lookup(t.Context(), "from"); !storage.Is(err, storage.NotFound) {
			t.Errorf("after %d steps: the old name: %v", after, err)
		}
		if e, err := b.Lookup(t.Context(), "to"); err != nil || e.Inode != 7 {
			t.Errorf("after %d steps: the new name: %v, inode %d", after, err, e.Inode)
		}
	}
}
