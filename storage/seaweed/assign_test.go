package seaweed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// counter assigns like a filer: each call begins behind the ids of the last.
type counter struct {
	calls, key atomic.Int64
	auth       string
}

func (c *counter) ask(_ context.Context, r *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error) {
	n := c.calls.Add(1)
	end := c.key.Add(int64(r.GetCount()))
	return &filerpb.AssignVolumeResponse{
		FileId: fmt.Sprintf("%d,%02x0000abcd", n, end-int64(r.GetCount())+1), Count: r.GetCount(), Auth: c.auth,
		Location: &filerpb.Location{Url: "volume:8080"},
	}, nil
}

func takeOne(t *testing.T, a *assigner, size int) target {
	t.Helper()
	to, err := a.take(t.Context(), "f", size)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestIDsAreUsedOnce: many writers share few calls and never an id.
func TestIDsAreUsedOnce(t *testing.T) {
	c := &counter{}
	a := newAssigner("b", "/buckets/b", c.ask)
	const writers, each = 16, 40
	ids := make([][]storage.ChunkID, writers)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for range each {
				to, err := a.take(t.Context(), "f", 10)
				if err != nil {
					t.Error(err)
					return
				}
				ids[w] = append(ids[w], to.id)
			}
		})
	}
	group.Wait()
	all := slices.Concat(ids...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != writers*each {
		t.Errorf("%d ids of %d are different", n, writers*each)
	}
	if got := c.calls.Load(); got != writers*each/runLength {
		t.Errorf("%d calls, want %d", got, writers*each/runLength)
	}
}

// TestRun: the ids of a run are the keys behind the first, and are uploaded to
// under the name that a token is good for.
func TestRun(t *testing.T) {
	c := &counter{auth: "token"}
	c.key.Store(0xfe)
	a := newAssigner("b", "/buckets/b", c.ask)
	for i, want := range []struct{ id, path string }{
		{"1,ff0000abcd", "1,ff0000abcd"},
		{"1,01000000abcd", "1,ff0000abcd_1"},
		{"1,01010000abcd", "1,ff0000abcd_2"},
	} {
		to := takeOne(t, a, 10)
		if string(to.id) != want.id || to.path != want.path || to.auth != "token" || to.volume != "1" || to.at != (holder{"volume:8080", "volume:18080"}) {
			t.Errorf("%d: %+v, want %+v", i, to, want)
		}
		if named, err := parseID(to.path); err != nil || named.String() != want.id {
			t.Errorf("%d: the path %q is %v, %v", i, to.path, named, err)
		}
	}
}

// TestRunEnds: a run is given up when it is old, when its volume refused, and for
// a large chunk.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		a := newAssigner("b", "/buckets/b", c.ask)
		step := func(what string, size int, volume string) target {
			t.Helper()
			to := takeOne(t, a, size)
			if to.volume != volume {
				t.Errorf("%s: volume %s, want %s", what, to.volume, volume)
			}
			return to
		}
		first := step("first", 10, "1")
		step("young", 10, "1")
		time.Sleep(runAge + time.Second) //nolint:forbidigo // time is the bubble's
		second := step("old", 10, "2")
		a.drop(first.run) // a late refusal is about an older run
		step("after a late refusal", 10, "2")
		a.drop(second.run)
		step("after a refusal", 10, "3")
		step("large", runSize+1, "4")
		step("small after a large one", 10, "3")
		c.auth = "token"
		time.Sleep(runAge + time.Second) //nolint:forbidigo // time is the bubble's
		step("signed", 10, "5")
		time.Sleep(signedAge + time.Second) //nolint:forbidigo // time is the bubble's
		step("a token that is about to end", 10, "6")
	})
}

// TestAssignIsLeft: who waits for another's call goes when its own time is over.
func TestAssignIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		c := &counter{}
		a := newAssigner("b", "/buckets/b", func(ctx context.Context, r *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error) {
			<-slow
			return c.ask(ctx, r)
		})
		done := make(chan error, 1)
		go func() {
			_, err := a.take(t.Context(), "f", 10)
			done <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.take(ctx, "f", 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a waiter got %v", err)
		}
		close(slow)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
