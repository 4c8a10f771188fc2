package driver

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
)

// kindCodes turns kinds out. It is a map and not a switch, so that a test can
// see that no kind is missing.
var kindCodes = map[storage.Kind]codes.Code{
	storage.Other:       codes.Internal,
	storage.NotFound:    codes.NotFound,
	storage.Exists:      codes.AlreadyExists,
	storage.Invalid:     codes.InvalidArgument,
	storage.OutOfRange:  codes.OutOfRange,
	storage.Denied:      codes.PermissionDenied,
	storage.Busy:        codes.Aborted,
	storage.InUse:       codes.FailedPrecondition,
	storage.Full:        codes.ResourceExhausted,
	storage.Stale:       codes.Internal,
	storage.Changed:     codes.Aborted,
	storage.Corrupt:     codes.Internal,
	storage.Unavailable: codes.Unavailable,
	storage.Unsupported: codes.Unimplemented,

	// The kernel's own words should not come this far.
	storage.NotDirectory: codes.Internal,
	storage.IsDirectory:  codes.Internal,
	storage.NotEmpty:     codes.Internal,
	storage.NotPermitted: codes.Internal,
	storage.ReadOnly:     codes.Internal,
	storage.NoData:       codes.Internal,
	storage.CrossDevice:  codes.Internal,
	storage.TooLong:      codes.Internal,
	storage.TooManyLinks: codes.Internal,
	storage.Loop:         codes.Internal,
}

// toStatus returns err as a gRPC status. One that is a status already stays.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(kindCodes[storage.KindOf(err)], err.Error())
}
