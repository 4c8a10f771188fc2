package storage

import (
	"context"
	"time"
)

// Guard is asked right before each call that changes a volume, by the adapter
// that makes the call, so that little time passes between the two.
type Guard interface {
	// Allow returns when a change may be sent, and by when it has to be answered or
	// given up. It may wait until ctx ends. Stale when this process must not change
	// the volume any more.
	Allow(ctx context.Context) (until time.Time, err error)
}
