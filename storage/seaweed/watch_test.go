package seaweed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// fakeFiler subscribes its callers to what the test sends.
type fakeFiler struct {
	clock
	answers chan *filerpb.SubscribeMetadataResponse
	since   time.Time
}

// clock tells the time of a filer, which is that much behind.
type clock struct {
	filerpb.SeaweedFilerClient
	behind time.Duration
}

func (c clock) ListEntries(context.Context, *filerpb.ListEntriesRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[filerpb.ListEntriesResponse], error) {
	return &fakeList{now: time.Now().Add(-c.behind)}, nil
}

type fakeList struct {
	grpc.ClientStream
	now time.Time
}

func (l *fakeList) Recv() (*filerpb.ListEntriesResponse, error) {
	return &filerpb.ListEntriesResponse{SnapshotTsNs: l.now.UnixNano()}, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx     context.Context
	answers chan *filerpb.SubscribeMetadataResponse
}

func (f *fakeFiler) SubscribeMetadata(ctx context.Context, in *filerpb.SubscribeMetadataRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[filerpb.SubscribeMetadataResponse], error) {
	f.since = time.Unix(0, in.GetSinceNs())
	return &fakeStream{ctx: ctx, answers: f.answers}, nil
}

func (s *fakeStream) Recv() (*filerpb.SubscribeMetadataResponse, error) {
	select {
	case r := <-s.answers:
		return r, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// TestSilentStream: a stream lives as long as the filer says anything, whatever
// the caller takes to be told, and is broken when it says nothing.
func TestSilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		filer := &fakeFiler{answers: make(chan *filerpb.SubscribeMetadataResponse)}
		w := &watcher{Client: &Client{filer: filer}, root: "/buckets/b"}
		done := make(chan error, 1)
		var ready, told int
		go func() {
			done <- w.Watch(t.Context(), func() { ready++ }, func(storage.Event) {
				told++
				time.Sleep(3 * silence) //nolint:forbidigo // time is the bubble's
			})
		}()
		for range 20 {
			time.Sleep(5 * time.Second) //nolint:forbidigo // time is the bubble's
			filer.answers <- &filerpb.SubscribeMetadataResponse{}
		}
		filer.answers <- &filerpb.SubscribeMetadataResponse{
			Directory:         "/buckets/b",
			EventNotification: &filerpb.EventNotification{NewEntry: &filerpb.Entry{Name: "f"}},
		}
		filer.answers <- &filerpb.SubscribeMetadataResponse{} // heard only when the caller was told
		last := time.Now()
		err := <-done
		if !storage.Is(err, storage.Unavailable) || !errors.Is(err, errSilent) {
			t.Errorf("a silent stream ended with %v", err)
		}
		if took := time.Since(last); took != silence {
			t.Errorf("broken after %v of silence", took)
		}
		if ready != 1 || told != 1 {
			t.Errorf("ready %d times, told %d events", ready, told)
		}
	})
}

// TestNeverHeard: a filer that does not even answer the subscription breaks the
// stream too, and the caller's own end is told as such.
func TestNeverHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &watcher{Client: &Client{filer: &fakeFiler{}}, root: "/buckets/b"}
		if err := w.Watch(t.Context(), func() { t.Error("ready") }, nil); !errors.Is(err, errSilent) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Watch(ctx, func() { t.Error("ready") }, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline: %v", err)
		}
	})
}

// TestWatchGoesByTheFilersClock: a subscription begins a little before now as the filer
// knows it, however far its clock is from ours: from a time that is yet to come, for
// the filer, nothing would be told.
func TestWatchGoesByTheFilersClock(t *testing.T) {
	for _, behind := range []time.Duration{0, time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			filer := &fakeFiler{clock: clock{behind: behind}}
			w := &watcher{Client: &Client{filer: filer}, root: "/buckets/b"}
			began := time.Now().Add(-behind)
			_ = w.Watch(t.Context(), func() {}, nil)
			if got := began.Sub(filer.since); got != lookback {
				t.Errorf("a filer that is %v behind: from %v before its time, want %v", behind, got, lookback)
			}
		})
	}
}

// TestJitter: a wait is never longer than asked for, and at least half of it.
func TestJitter(t *testing.T) {
	for _, wait := range []time.Duration{1, firstWait, maxBackoff} {
		for range 1000 {
			if got := jitter(wait); got < wait/2 || got > wait {
				t.Fatalf("%v became %v", wait, got)
			}
		}
	}
}
