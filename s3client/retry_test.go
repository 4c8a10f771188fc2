package s3client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestUsersAreChangedOneAtATime: and who waits for its turn does not lose the time
// of its attempt.
func TestUsersAreChangedOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustNew(t, Options{Endpoint: "http://host.invalid", Attempt: time.Second, Attempts: 1})
		running := 0
		for range 8 {
			go func() {
				err := c.change(t.Context(), "change", "it", func(ctx context.Context) error {
					running++
					defer func() { running-- }()
					if running > 1 {
						t.Error("two at a time")
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(900 * time.Millisecond):
						return nil
					}
				})
				if err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.change(ctx, "change", "it", func(context.Context) error { t.Error("after its end"); return nil })
		if !storage.IsContext(err) {
			t.Errorf("a wait that ended: %v", err)
		}
		<-time.After(10 * time.Second)
	})
}
