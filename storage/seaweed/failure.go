package seaweed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// The filer answers most refusals as UNKNOWN with a text, and some as a field of
// the answer. This file is the one place where text is read; the suites of
// storagetest hold it against a real filer.

// texts is searched in order; the first fragment found decides.
var texts = []struct {
	fragment string
	kind     storage.Kind
}{
	{"no entry is found in filer store", storage.NotFound},
	{"existing entry is a directory", storage.IsDirectory},
	{"existing entry is a file", storage.NotDirectory},
	{"fail to delete non-empty folder", storage.NotEmpty},
	{"to a subdirectory of itself", storage.Invalid},
	{"can not move across collection", storage.CrossDevice},
	{"entry name too long", storage.TooLong},
	{"parent path is a file", storage.NotDirectory},
	{"entry already exists", storage.Exists},
	{"over quota", storage.Full},
	{"no free volumes", storage.Full},
	{"no more writable volumes", storage.Full},
	{"No writable volumes", storage.Full},
	{"no space left on device", storage.Full},
	{"not found", storage.NotFound},
}

// grpcKinds says what the codes mean that carry a meaning of their own.
var grpcKinds = map[codes.Code]storage.Kind{
	codes.NotFound:           storage.NotFound,
	codes.AlreadyExists:      storage.Exists,
	codes.FailedPrecondition: storage.Changed,
	codes.InvalidArgument:    storage.Invalid,
	codes.PermissionDenied:   storage.Denied,
	codes.Unauthenticated:    storage.Denied,
	codes.ResourceExhausted:  storage.Full,
	codes.Unavailable:        storage.Unavailable,
	codes.DeadlineExceeded:   storage.Unavailable,
	codes.Aborted:            storage.Unavailable,
	codes.Unimplemented:      storage.Unsupported,
}

// filerKinds is total over filerpb.FilerError.
var filerKinds = map[filerpb.FilerError]storage.Kind{
	filerpb.FilerError_OK:                    storage.Other,
	filerpb.FilerError_ENTRY_NAME_TOO_LONG:   storage.TooLong,
	filerpb.FilerError_PARENT_IS_FILE:        storage.NotDirectory,
	filerpb.FilerError_EXISTING_IS_DIRECTORY: storage.IsDirectory,
	filerpb.FilerError_EXISTING_IS_FILE:      storage.Exists,
	filerpb.FilerError_ENTRY_ALREADY_EXISTS:  storage.Exists,
	filerpb.FilerError_PRECONDITION_FAILED:   storage.Changed,
}

func textKind(msg string) storage.Kind {
	for _, t := range texts {
		if strings.Contains(msg, t.fragment) {
			return t.kind
		}
	}
	return storage.Other
}

// classify turns the error of a call of the filer into ours. A context that the
// caller ended passes as its own error.
func classify(ctx context.Context, err error) error { return classifyFrom(ctx, "filer", err) }

// classifyFrom is classify for any server.
func classifyFrom(ctx context.Context, server string, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if ctx.Err() != nil {
		if ok && s.Code() == codes.DeadlineExceeded && s.Message() != ctx.Err().Error() { // why there was no connection
			return fmt.Errorf("%w (%s)", ctx.Err(), s.Message())
		}
		return ctx.Err()
	}
	if !ok {
		return err
	}
	kind, known := grpcKinds[s.Code()]
	if !known {
		kind = textKind(s.Message())
	}
	return storage.Errorf(kind, "%s: %s", server, s.Message())
}

// refused turns the fields by which an answer refuses into an error.
func refused(code filerpb.FilerError, msg string) error {
	if code == filerpb.FilerError_OK && msg == "" {
		return nil
	}
	kind := filerKinds[code]
	if kind == storage.Other {
		kind = textKind(msg)
	}
	return storage.Errorf(kind, "filer: %s", msg)
}

// call runs one call under the client's deadline and repeats it while the filer
// is away. attempt counts from 0: an operation that must not run twice looks at
// it, since the one before may have been carried out.
func (c *Client) call(ctx context.Context, f func(ctx context.Context, attempt int) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	wait := firstWait
	for attempt := 0; ; attempt++ {
		err := f(bounded, attempt)
		if err == nil || ctx.Err() != nil {
			return firstOf(ctx.Err(), err)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			why := strings.TrimPrefix(err.Error(), context.DeadlineExceeded.Error())
			return storage.Errorf(storage.Unavailable, "no answer from the filer within %v%s", c.timeout, why)
		}
		if !storage.Is(err, storage.Unavailable) {
			return err
		}
		select {
		case <-bounded.Done():
			return firstOf(ctx.Err(), err)
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, maxBackoff)
	}
}

// firstWait is how long the first repetition waits; each later one twice as long,
// up to maxBackoff.
const firstWait = 20 * time.Millisecond

// jitter spreads what many callers repeat after the same failure over half of the
// wait, so that a server that is back does not meet them all at once.
func jitter(wait time.Duration) time.Duration {
	return wait/2 + rand.N(wait/2+1)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
