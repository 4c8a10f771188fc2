package seaweed

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

var errHeard = errors.New("heard")

// signed notes what its callers sign with.
type signed struct {
	clock
	changes, streams []int32
}

func (s *signed) SubscribeMetadata(_ context.Context, in *filerpb.SubscribeMetadataRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[filerpb.SubscribeMetadataResponse], error) {
	s.streams = append(s.streams, in.GetSignature())
	return nil, errHeard
}

func (s *signed) ObjectTransaction(_ context.Context, in *filerpb.ObjectTransactionRequest, _ ...grpc.CallOption) (*filerpb.ObjectTransactionResponse, error) {
	s.changes = append(s.changes, in.GetSignatures()...)
	return nil, errHeard
}

// TestVolumesHearOfEachOther: two volumes of one bucket, mounted by one process, are
// others to each other: a stream leaves out the changes of its own volume alone.
func TestVolumesHearOfEachOther(t *testing.T) {
	f := &signed{}
	c := &Client{filer: f, signature: 1}
	for range 2 {
		v := c.Volume("b", "v")
		_ = v.Watcher.Watch(t.Context(), func() {}, nil)
		_ = v.Files.(*bucket).transact(t.Context(), "/buckets/b/f", nil)
	}
	if !slices.Equal(f.changes, f.streams) {
		t.Errorf("changes are signed %v, streams %v", f.changes, f.streams)
	}
	if f.streams[0] == f.streams[1] {
		t.Error("two volumes have one signature")
	}
}
