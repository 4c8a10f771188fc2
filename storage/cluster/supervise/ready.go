package supervise

import (
	"context"
	"time"
)

// Poll asks probe again and again, at most every interval, until it returns nil.
// When ctx ends first it returns what probe said last: that is what the reader of
// the error wants to know.
func Poll(ctx context.Context, interval time.Duration, probe func(ctx context.Context) error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return err
		}
	}
}
