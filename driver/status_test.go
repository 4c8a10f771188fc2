package driver

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestEveryKindHasACode(t *testing.T) {
	for _, k := range storage.Kinds() {
		code, ok := kindCodes[k]
		if !ok || code == codes.OK {
			t.Errorf("kind %v has no gRPC code", k)
		}
		if got := status.Code(toStatus(fmt.Errorf("outer: %w", storage.Errorf(k, "inner")))); got != code {
			t.Errorf("kind %v → %v, want %v", k, got, code)
		}
	}
	if len(kindCodes) != len(storage.Kinds()) {
		t.Errorf("%d codes for %d kinds", len(kindCodes), len(storage.Kinds()))
	}
}

func TestOtherErrors(t *testing.T) {
	for err, want := range map[error]codes.Code{
		nil:                                   codes.OK,
		fmt.Errorf("x: %w", context.Canceled): codes.Canceled,
		fmt.Errorf("x: %w", context.DeadlineExceeded): codes.DeadlineExceeded,
		status.Error(codes.Aborted, "x"):              codes.Aborted,
		fmt.Errorf("nobody classified this"):          codes.Internal,
	} {
		if got := status.Code(toStatus(err)); got != want {
			t.Errorf("%v → %v, want %v", err, got, want)
		}
	}
}
