package session

import (
	"sync"
	"testing"
	"testing/synctest"
)

// TestHands: no request waits for another one, those that stay serve again, and
// none is left behind the session's end.
func TestHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		h := newHands(end)
		const many = 3 * maxIdle
		release := make(chan struct{})
		var begun sync.WaitGroup
		begun.Add(many)
		for range many {
			h.do(func() {
				begun.Done()
				<-release
			})
		}
		begun.Wait()
		close(release)
		h.wait()
		synctest.Wait()
		if n := len(h.stay); n != maxIdle {
			t.Fatalf("%d goroutines stay, want %d", n, maxIdle)
		}
		// One that stays is there for the next one: nobody new comes to stay.
		done := make(chan struct{})
		h.do(func() { close(done) })
		<-done
		synctest.Wait()
		if n := len(h.stay); n != maxIdle {
			t.Fatalf("%d goroutines stay after one more, want %d", n, maxIdle)
		}
		close(end) // synctest fails when one is left
	})
}
