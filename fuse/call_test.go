package fuse

import (
	"context"
	"errors"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// A call ends at its deadline, at an interrupt or when it is over, and with it what
// is derived from it; what was let go of hears nothing.
func TestCallEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(c *call)
		want error
	}{
		"deadline":           {func(c *call) { <-c.Done() }, context.DeadlineExceeded},
		"unwatched deadline": {func(*call) { <-time.After(time.Minute) }, context.DeadlineExceeded},
		"finished":           {func(c *call) { c.finish() }, context.Canceled},
		"the first counts":   {func(c *call) { c.finish(); <-time.After(time.Minute) }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				call := newCall(time.Minute)
				if name == "unwatched deadline" {
					c.end(call)
					if !errors.Is(call.Err(), c.want) {
						t.Errorf("the call: %v", call.Err())
					}
					<-call.Done()
					return
				}
				derived, cancel := context.WithTimeout(call, time.Hour)
				defer cancel()
				heard := make(chan struct{})
				stop := context.AfterFunc(call, func() { close(heard) })
				unheard := context.AfterFunc(call, func() { t.Error("one that was stopped is called") })
				if !unheard() || unheard() {
					t.Error("stopped the wrong number of times")
				}
				if derived.Err() != nil || call.Err() != nil {
					t.Fatalf("before its end: %v %v", derived.Err(), call.Err())
				}
				c.end(call)
				<-derived.Done()
				<-heard
				if stop() {
					t.Error("one that was called is stopped")
				}
				if !errors.Is(call.Err(), c.want) || !errors.Is(derived.Err(), c.want) {
					t.Errorf("the call: %v, derived from it: %v", call.Err(), derived.Err())
				}
				late, cancelLate := context.WithCancel(call)
				defer cancelLate()
				<-late.Done()
				again := make(chan struct{})
				context.AfterFunc(call, func() { close(again) })
				<-again
			})
		})
	}
}

// Whoever derives a context from a call starts no goroutine.
func TestCallsAreCheap(t *testing.T) {
	fs := New(memory.NewBucket(1<<20).Volume(), Options{})
	cancel := make(chan struct{})
	before := runtime.NumGoroutine()
	for i := range uint64(1000) {
		ctx, done := fs.reading(i, cancel)
		derived, leave := context.WithTimeout(ctx, time.Hour)
		t.Cleanup(func() { leave(); done() })
		_ = derived.Done()
	}
	if n := runtime.NumGoroutine() - before; n > 10 {
		t.Errorf("%d goroutines for 1000 calls", n)
	}
}

// hung is a store that answers nobody who stays.
type hung struct {
	storage.Files
	asked chan struct{}
}

func (h hung) Lookup(ctx context.Context, _ storage.Path) (storage.Entry, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return storage.Entry{}, ctx.Err()
}

// What waits longer than the deadline gets EIO, and what is interrupted EINTR, for
// that call alone.
func TestDeadlineAndInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := memory.NewBucket(1 << 20).Volume()
		asked := make(chan struct{}, 10)
		v.Files = hung{v.Files, asked}
		fs := New(v, Options{Deadline: 5 * time.Second})
		fs.table.root.learn(storage.Entry{Mode: os.ModeDir}, fs.memo)
		answers := make(chan gofuse.Status, 10)
		look := func(unique uint64, cancel chan struct{}) {
			var out gofuse.EntryOut
			h := header(1)
			h.Unique = unique
			answers <- fs.Lookup(cancel, &h, "x", &out)
		}
		begun := time.Now()
		interrupted := make(chan struct{})
		go look(2, nil)
		go look(4, interrupted)
		<-asked
		<-asked
		<-time.After(time.Second)
		close(interrupted)
		fs.Interrupted(4)
		fs.Interrupted(6) // which nobody knows
		if st := <-answers; st != gofuse.EINTR || time.Since(begun) != time.Second {
			t.Errorf("interrupted: %v after %v", st, time.Since(begun))
		}
		if st := <-answers; st != gofuse.EIO || time.Since(begun) != 5*time.Second {
			t.Errorf("unanswered: %v after %v", st, time.Since(begun))
		}
		look(8, interrupted) // interrupted before it begins
		if st := <-answers; st != gofuse.EINTR {
			t.Errorf("interrupted early: %v", st)
		}
		if len(fs.calls.open) != 0 {
			t.Errorf("%d calls are left", len(fs.calls.open))
		}
	})
}

// What a request's context costs, when nobody waits and when somebody derives.
func BenchmarkReading(b *testing.B) {
	fs := New(memory.NewBucket(1<<20).Volume(), Options{})
	cancel := make(chan struct{})
	for name, use := range map[string]func(ctx context.Context){
		"alone": func(context.Context) {},
		"derived": func(ctx context.Context) {
			_, leave := context.WithTimeout(ctx, time.Hour)
			leave()
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, done := fs.reading(2, cancel)
				use(ctx)
				done()
			}
		})
	}
	// As it was: a context of the library's over the kernel's channel.
	b.Run("foreign channel", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, done := context.WithTimeout(foreign{b.Context(), cancel}, time.Hour)
			done()
		}
	})
}

type foreign struct {
	context.Context
	cancel <-chan struct{}
}

func (c foreign) Done() <-chan struct{} { return c.cancel }
