package driver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// errCrash stands for a process that died: nothing after it happened.
var errCrash = errors.New("crashed here")

// crasher is a coat around everything that a controller changes. The step that
// its countdown ends at fails, before or after it took effect, and so does
// everything later, until the process is "started again".
type crasher struct {
	*memory.Store
	left int
	// after: the fatal step takes effect, only its answer is lost.
	after bool
	dead  bool
}

func (c *crasher) step(act func() error) error {
	if c.dead {
		return errCrash
	}
	c.left--
	if c.left > 0 {
		return act()
	}
	c.dead = true
	if c.after {
		_ = act()
	}
	return errCrash
}

func (c *crasher) CreateBucket(ctx context.Context, b storage.BucketName) error {
	return c.step(func() error { return c.Store.CreateBucket(ctx, b) })
}

func (c *crasher) DeleteBucket(ctx context.Context, b storage.BucketName) error {
	return c.step(func() error { return c.Store.DeleteBucket(ctx, b) })
}

func (c *crasher) Grant(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) (k storage.Keys, err error) {
	err = c.step(func() error { k, err = c.Store.Grant(ctx, user, b, prefix); return err })
	return k, err
}

func (c *crasher) AddKeys(ctx context.Context, user string) (k storage.Keys, err error) {
	err = c.step(func() error { k, err = c.Store.AddKeys(ctx, user); return err })
	return k, err
}

func (c *crasher) EndKeys(ctx context.Context, user string, access []string) error {
	return c.step(func() error { return c.Store.EndKeys(ctx, user, access) })
}

func (c *crasher) Restore(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) error {
	return c.step(func() error { return c.Store.Restore(ctx, user, b, prefix) })
}

func (c *crasher) Revoke(ctx context.Context, user string) error {
	return c.step(func() error { return c.Store.Revoke(ctx, user) })
}

func (c *crasher) CreateRecord(ctx context.Context, r storage.Record) (out storage.Record, err error) {
	err = c.step(func() error { out, err = c.Store.CreateRecord(ctx, r); return err })
	return out, err
}

func (c *crasher) UpdateRecord(ctx context.Context, r storage.Record) (out storage.Record, err error) {
	err = c.step(func() error { out, err = c.Store.UpdateRecord(ctx, r); return err })
	return out, err
}

func (c *crasher) DeleteRecord(ctx context.Context, id storage.VolumeID) error {
	return c.step(func() error { return c.Store.DeleteRecord(ctx, id) })
}

func (c *crasher) Prepare(ctx context.Context, b storage.BucketName, _ storage.Path) error {
	return c.step(func() error {
		if ok, err := c.BucketExists(ctx, b); err != nil || !ok {
			return fmt.Errorf("prepare %s: bucket exists = %v, %w", b, ok, err)
		}
		return nil
	})
}

func (c *crasher) Place(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	return c.step(func() error { return c.Store.Place(ctx, b, folder, p) })
}

func (c *crasher) Unplace(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	return c.step(func() error { return c.Store.Unplace(ctx, b, folder, p) })
}

func (c *crasher) controller() *Controller {
	return NewController(ControllerDeps{Records: c, Buckets: c, Access: c, Capacity: c, Prepare: c, Place: c})
}

// eachCrash runs test for every step that run does, with a crash before it and
// with one after it.
func eachCrash(t *testing.T, prepare func(*testing.T, *memory.Store), run func(*Controller) error, check func(*testing.T, *memory.Store)) {
	t.Helper()
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			store := memory.New()
			prepare(t, store)
			c := &crasher{Store: store, left: n, after: after}
			err := run(c.controller())
			if !c.dead {
				if err != nil {
					t.Fatalf("without a crash: %v", err)
				}
				if n < 4 {
					t.Errorf("only %d steps seen", n-1)
				}
				break
			}
			t.Run(fmt.Sprintf("step %d after=%v", n, after), func(t *testing.T) {
				if !errors.Is(err, errCrash) {
					t.Errorf("the crash was hidden: %v", err)
				}
				again := (&crasher{Store: store, left: 1 << 30}).controller()
				if err := run(again); err != nil {
					t.Fatalf("repeated: %v", err)
				}
				check(t, store)
			})
		}
	}
}

// TestCreateFinishesAfterACrash: and a deletion leaves nothing.
func TestCreateFinishesAfterACrash(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *memory.Store){
		"free": func(*testing.T, *memory.Store) {},
		"taken": func(t *testing.T, s *memory.Store) {
			must(t, s.CreateBucket(t.Context(), "photos"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			foreign := name == "taken"
			eachCrash(t, prepare, func(c *Controller) error {
				_, err := c.CreateVolume(t.Context(), ask("photos"))
				return err
			}, func(t *testing.T, s *memory.Store) { checkWhole(t, s, foreign) })
		})
	}
}

// TestDeleteFinishesAfterACrash: nothing is left, whatever died.
func TestDeleteFinishesAfterACrash(t *testing.T) {
	eachCrash(t, func(t *testing.T, s *memory.Store) {
		_, err := (&crasher{Store: s, left: 1 << 30}).controller().CreateVolume(t.Context(), ask("photos"))
		must(t, err)
		must(t, s.PutObject("photos", "a picture"))
	}, func(c *Controller) error {
		_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		return err
	}, func(t *testing.T, s *memory.Store) { checkNothing(t, s) })
}

// TestDeleteOfAHalfMadeVolume: deleted instead of finished.
func TestDeleteOfAHalfMadeVolume(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 6; n++ {
			s := memory.New()
			_, err := (&crasher{Store: s, left: n, after: after}).controller().CreateVolume(t.Context(), ask("photos"))
			if n < 6 && !errors.Is(err, errCrash) {
				t.Fatalf("step %d: %v", n, err)
			}
			_, err = (&crasher{Store: s, left: 1 << 30}).controller().DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
			must(t, err)
			checkNothing(t, s)
		}
	}
}

// TestNoStepTakesAnothersData: a bucket that somebody else made and filled while
// we were dead is neither taken nor deleted.
func TestNoStepTakesAnothersData(t *testing.T) {
	for _, repeat := range []bool{true, false} {
		s := memory.New()
		// The record is the first step; the crash comes before the bucket.
		_, err := (&crasher{Store: s, left: 2}).controller().CreateVolume(t.Context(), ask("photos"))
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		must(t, s.CreateBucket(t.Context(), "photos"))
		must(t, s.PutObject("photos", "their picture"))
		c := (&crasher{Store: s, left: 1 << 30}).controller()
		if repeat {
			resp, err := c.CreateVolume(t.Context(), ask("photos"))
			must(t, err)
			if b := resp.GetVolume().GetVolumeContext()[contextBucket]; b == "photos" {
				t.Error("the volume took another's bucket")
			}
		}
		_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		must(t, err)
		if left := s.BucketNames(); len(left) != 1 || left[0] != "photos" {
			t.Errorf("buckets left: %v, want theirs", left)
		}
	}
}

// checkWhole: the volume is whole, its keys open its bucket, and its deletion
// leaves nothing but what was there before.
func checkWhole(t *testing.T, s *memory.Store, foreign bool) {
	t.Helper()
	r, err := s.GetRecord(t.Context(), "photos")
	must(t, err)
	want := storage.BucketName("photos")
	if foreign {
		want = otherBucketOf("photos", "photos")
	}
	if r.Phase != storage.Ready || r.Bucket != want || r.User != "holdfast-photos" {
		t.Errorf("record = %+v", r)
	}
	if !s.Allowed(r.Keys, want) {
		t.Error("the volume's keys do not open its bucket")
	}
	c := NewController(ControllerDeps{Records: s, Buckets: s, Access: s})
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	if foreign {
		if left := s.BucketNames(); len(left) != 1 || left[0] != "photos" {
			t.Errorf("buckets left: %v, want the foreign one", left)
		}
		must(t, s.DeleteBucket(t.Context(), "photos"))
	}
	checkNothing(t, s)
}

func checkNothing(t *testing.T, s *memory.Store) {
	t.Helper()
	records, err := s.ListRecords(t.Context(), "", 10)
	must(t, err)
	if b, u := s.BucketNames(), s.UserNames(); len(records)+len(b)+len(u) > 0 {
		t.Errorf("left behind: records %v, buckets %v, users %v", records, b, u)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ask(name string, modes ...mode) *csi.CreateVolumeRequest {
	if len(modes) == 0 {
		modes = []mode{everyone}
	}
	req := &csi.CreateVolumeRequest{Name: name}
	for _, m := range modes {
		req.VolumeCapabilities = append(req.VolumeCapabilities, mountCap(m))
	}
	return req
}

func mountCap(m mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: m},
	}
}
