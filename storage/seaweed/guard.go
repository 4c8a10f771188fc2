package seaweed

import (
	"context"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// reads are the calls that change nothing in a bucket. Whatever is not among them
// asks the guard, so that a new call cannot be forgotten.
var reads = map[string]bool{
	filerpb.SeaweedFiler_LookupDirectoryEntry_FullMethodName: true,
	filerpb.SeaweedFiler_AssignVolume_FullMethodName:         true,
	filerpb.SeaweedFiler_LookupVolume_FullMethodName:         true,
	filerpb.SeaweedFiler_Statistics_FullMethodName:           true,
}

// Under returns the same client, all of whose changes are made under a guard.
// Each attempt asks it, right before it is sent, and is given up when the guard
// says; what was given up is tried again as after any other silence.
func (c *Client) Under(g storage.Guard) *Client {
	own := *c
	own.guard = g
	own.filer = filerpb.NewSeaweedFilerClient(guarded{c.conn, g})
	return &own
}

// guarded is a connection whose calls ask a guard. Streams only read.
type guarded struct {
	grpc.ClientConnInterface
	guard storage.Guard
}

// Invoke implements grpc.ClientConnInterface.
func (g guarded) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if !reads[method] {
		bounded, done, err := allowed(ctx, g.guard)
		if err != nil {
			return err
		}
		defer done()
		ctx = bounded
	}
	return g.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// allowed returns the context of a change, when it may be sent.
func allowed(ctx context.Context, g storage.Guard) (context.Context, context.CancelFunc, error) {
	if g == nil {
		return ctx, func() {}, nil
	}
	until, err := g.Allow(ctx)
	if err != nil {
		return nil, nil, err
	}
	bounded, done := context.WithDeadline(ctx, until)
	return bounded, done, nil
}
