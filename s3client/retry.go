package s3client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Pauses between attempts double from firstPause to maxPause, each shortened at
// random by up to a half, so that many callers do not return together.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// do runs one call until it gets an answer other than Unavailable, and returns
// its error classified, with op and what in front.
func (c *Client) do(ctx context.Context, op, what string, call func(context.Context) error) error {
	return c.doWithin(ctx, c.attempt, op, what, call)
}

func (c *Client) doWithin(ctx context.Context, limit time.Duration, op, what string, call func(context.Context) error) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		err := once(ctx, limit, call)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w", op, what, ctx.Err())
		case !storage.Is(err, storage.Unavailable) || attempt >= c.attempts:
			return fmt.Errorf("%s %s: %w", op, what, err)
		}
		wait := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%s %s: %w", op, what, ctx.Err())
		case <-wait.C:
		}
		pause = min(2*pause, maxPause)
	}
}

func once(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return classify(call(ctx))
}
