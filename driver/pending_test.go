package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestSecondOperationOnAVolumeIsBusy(t *testing.T) {
	var p pending
	inside := false
	err := p.do(t.Context(), "a", "first", func() error {
		inside = true
		if err := p.do(t.Context(), "a", "second", func() error { return nil }); !storage.Is(err, storage.Busy) {
			t.Errorf("second on the same volume: %v", err)
		}
		return p.do(t.Context(), "b", "other", func() error { return nil })
	})
	if err != nil || !inside {
		t.Fatal(err)
	}
	if err := p.do(t.Context(), "a", "third", func() error { return nil }); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

func TestFailureAndPanicFreeTheVolume(t *testing.T) {
	var p pending
	want := errors.New("no")
	if err := p.do(t.Context(), "a", "x", func() error { return want }); !errors.Is(err, want) {
		t.Error(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = p.do(t.Context(), "a", "x", func() error { panic("x") })
	}()
	if err := p.do(t.Context(), "a", "x", func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestARenewalIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pending
		go p.doQuietly("a", func() { time.Sleep(time.Second) }) //nolint:forbidigo // in a bubble
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := p.do(short, "a", "x", func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait that ended early: %v", err)
		}
		if err := p.do(t.Context(), "a", "x", func() error { return nil }); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		_ = p.do(t.Context(), "a", "x", func() error {
			p.doQuietly("a", func() { t.Error("a renewal met an operation") })
			return nil
		})
	})
}

// A hundred pods of a node end at once: none of them is refused because of another.
func TestPublicationsOfOtherPathsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pending
		slow := func() error { time.Sleep(time.Second); return nil } //nolint:forbidigo // in a bubble
		var at sync.WaitGroup
		for i := range 100 {
			at.Go(func() {
				if err := p.doAt(t.Context(), "a", "end", fmt.Sprint("pod", i), slow); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := p.do(t.Context(), "a", "unstage", slow); !storage.Is(err, storage.Busy) {
			t.Errorf("another call among them: %v", err)
		}
		at.Wait()

		go p.doAt(t.Context(), "a", "end", "pod", slow) //nolint:errcheck // its outcome is not asked for
		synctest.Wait()
		if err := p.doAt(t.Context(), "a", "end", "pod", slow); !storage.Is(err, storage.Busy) {
			t.Errorf("the same path again: %v", err)
		}
		go p.do(t.Context(), "b", "stage", slow) //nolint:errcheck // its outcome is not asked for
		synctest.Wait()
		if err := p.doAt(t.Context(), "b", "publish", "pod", slow); !storage.Is(err, storage.Busy) {
			t.Errorf("a publication while it is staged: %v", err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble
	})
}
