package driver

import (
	"context"
	"errors"
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
