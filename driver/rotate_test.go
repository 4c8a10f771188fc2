package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// made is a store with a volume, and the volume's keys.
func made(t *testing.T) (*memory.Store, storage.Keys) {
	t.Helper()
	s := memory.New()
	_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	return s, keysIn(t, s)
}

func keysIn(t *testing.T, s *memory.Store) storage.Keys {
	t.Helper()
	r, err := s.GetRecord(t.Context(), "photos")
	must(t, err)
	return r.Keys
}

// wantAllowed says which keys open the volume's bucket, and that there is no other.
func wantAllowed(t *testing.T, s *memory.Store, want ...storage.Keys) {
	t.Helper()
	have, err := s.ListKeys(t.Context(), userOf("photos"))
	must(t, err)
	var ids []string
	for _, k := range want {
		ids = append(ids, k.Access)
		if !s.Allowed(k, "photos") {
			t.Errorf("key %s does not work", k.Access)
		}
	}
	slices.Sort(ids)
	if !slices.Equal(have, ids) {
		t.Errorf("keys %v work, want %v", have, ids)
	}
}

func TestRotateAtOnce(t *testing.T) {
	s, old := made(t)
	_, err := s.AddKeys(t.Context(), userOf("photos")) // the user made it for itself
	must(t, err)
	got, err := newController(s).RotateKeys(t.Context(), "photos", old.Access, 0)
	must(t, err)
	if got.Access == old.Access || len(got.Retired) > 0 {
		t.Errorf("after the rotation: %+v", got)
	}
	wantAllowed(t, s, keysIn(t, s))
}

// TestOldKeysEndOnTime: also when the controller that rotated is not there any
// more, and not before.
func TestOldKeysEndOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := made(t)
		own, err := s.AddKeys(t.Context(), userOf("photos"))
		must(t, err)
		c := newController(s)
		running, stop := context.WithCancel(t.Context())
		go func() { _ = c.Run(running) }()
		got, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
		must(t, err)
		if len(got.Retired) != 1 || got.Retired[0].Access != old.Access || !got.Retired[0].Until.Equal(now().Add(time.Hour)) {
			t.Errorf("retired: %+v", got.Retired)
		}
		if s.Allowed(own, "photos") {
			t.Error("a key that is in no record works on")
		}
		stop()
		restarted, end := context.WithCancel(t.Context())
		defer end()
		again := newController(s)
		go func() { _ = again.Run(restarted) }()
		pass(time.Hour - time.Millisecond)
		wantAllowed(t, s, old, keysIn(t, s))
		stray, err := s.AddKeys(t.Context(), userOf("photos")) // by the old key, at the last moment
		must(t, err)
		pass(2 * time.Millisecond)
		wantAllowed(t, s, keysIn(t, s))
		if s.Allowed(stray, "photos") {
			t.Error("a key that the old one made outlives it")
		}
		if r, err := s.GetRecord(t.Context(), "photos"); err != nil || len(r.Retired) > 0 || r.Rotation != nil {
			t.Errorf("left in the record: %+v, %v", r, err)
		}
	})
}

// pass lets time go by, and what is due then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestRotateTwiceWithinAnOverlap: a later rotation shortens what an earlier one
// allowed and never prolongs it, and there is a limit.
func TestRotateTwiceWithinAnOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, first := made(t)
		c := newController(s)
		running, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = c.Run(running) }()
		rotate := func(overlap time.Duration) {
			t.Helper()
			_, err := c.RotateKeys(t.Context(), "photos", "", overlap)
			must(t, err)
		}
		rotate(time.Hour)
		second := keysIn(t, s)
		rotate(2 * time.Hour)
		third := keysIn(t, s)
		wantAllowed(t, s, first, second, third)
		pass(time.Hour + time.Millisecond)
		wantAllowed(t, s, second, third)
		rotate(time.Minute)
		pass(time.Minute + time.Millisecond)
		wantAllowed(t, s, keysIn(t, s))

		for range maxRetired {
			rotate(time.Hour)
		}
		_, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
		wantKind(t, "one too many", err, storage.InUse)
		rotate(0)
		wantAllowed(t, s, keysIn(t, s))
	})
}

// TestRotateFinishesAfterACrash: whatever step died, the repeated call makes the
// volume's keys whole, and no other key works.
func TestRotateFinishesAfterACrash(t *testing.T) {
	for _, overlap := range []time.Duration{0, time.Hour} {
		t.Run(overlap.String(), func(t *testing.T) {
			var old storage.Keys
			eachCrash(t, func(t *testing.T, s *memory.Store) {
				_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
				must(t, err)
				_, err = s.AddKeys(t.Context(), userOf("photos"))
				must(t, err)
				old = keysIn(t, s)
			}, func(c *Controller) error {
				_, err := c.RotateKeys(t.Context(), "photos", old.Access, overlap)
				return err
			}, func(t *testing.T, s *memory.Store) {
				current := keysIn(t, s)
				if current == old {
					t.Error("the keys were not replaced")
				}
				if overlap == 0 {
					wantAllowed(t, s, current)
				} else {
					wantAllowed(t, s, current, old)
				}
			})
		})
	}
}

// TestCrashedRotationIsSettledByTheLoop: nobody repeats the call, and still no
// stray key works in the end.
func TestCrashedRotationIsSettledByTheLoop(t *testing.T) {
	for _, after := range []bool{false, true} {
		for step := range 64 {
			n, m := 1+step/8, 1+step%8
			t.Run(fmt.Sprintf("steps %d and %d after=%v", n, m, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, old := made(t)
					crashed := (&crasher{Store: s, left: n, after: after}).controller()
					_, err := crashed.RotateKeys(t.Context(), "photos", "", time.Minute)
					// And the next one dies as well while it settles that.
					second, stop := context.WithCancel(t.Context())
					dying := (&crasher{Store: s, left: m, after: after}).controller()
					go func() { _ = dying.Run(second) }()
					pass(2 * rotationDead)
					stop()
					third, end := context.WithCancel(t.Context())
					defer end()
					c := newController(s)
					go func() { _ = c.Run(third) }()
					pass(2 * rotationDead)
					current := keysIn(t, s)
					wantAllowed(t, s, current)
					if err == nil && current == old {
						t.Error("a rotation that was done is undone")
					}
					if r, err := s.GetRecord(t.Context(), "photos"); err != nil || len(r.Retired) > 0 || r.Rotation != nil {
						t.Errorf("left in the record: %+v, %v", r, err)
					}
				})
			})
		}
	}
}

// keyMeddler does something right before or after a key is made.
type keyMeddler struct {
	*memory.Store
	before, then func()
}

func (m *keyMeddler) AddKeys(ctx context.Context, user string) (storage.Keys, error) {
	if m.before != nil {
		m.before()
	}
	k, err := m.Store.AddKeys(ctx, user)
	if m.then != nil {
		m.then()
	}
	return k, err
}

// TestOthersDoNotEndAKeyBeingMade: another controller ends old keys between the
// making of a key and its writing.
func TestOthersDoNotEndAKeyBeingMade(t *testing.T) {
	s, old := made(t)
	m := &keyMeddler{Store: s, then: func() {
		_, err := newController(s).settleNow(t.Context(), "photos")
		must(t, err)
	}}
	c := NewController(ControllerDeps{Records: s, Buckets: s, Access: m})
	_, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
	must(t, err)
	wantAllowed(t, s, old, keysIn(t, s))
}

// TestTwoControllersRotate: the one that is overtaken says so, and its key is gone.
func TestTwoControllersRotate(t *testing.T) {
	for _, before := range []bool{false, true} {
		s, old := made(t)
		other := func() {
			_, err := newController(s).RotateKeys(t.Context(), "photos", "", time.Hour)
			must(t, err)
		}
		m := &keyMeddler{Store: s, then: other}
		if before {
			m = &keyMeddler{Store: s, before: other}
		}
		c := NewController(ControllerDeps{Records: s, Buckets: s, Access: m})
		_, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
		wantKind(t, "the slow one", err, storage.Busy)
		wantAllowed(t, s, old, keysIn(t, s))
	}
}

// TestDeletedWhileRotated: the key that is made too late opens nothing.
func TestDeletedWhileRotated(t *testing.T) {
	s, _ := made(t)
	m := &keyMeddler{Store: s, then: func() {
		_, err := newController(s).DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		must(t, err)
	}}
	c := NewController(ControllerDeps{Records: s, Buckets: s, Access: m})
	_, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
	wantKind(t, "rotation of a deleted volume", err, storage.NotFound)
	checkNothing(t, s)
}

func TestRotateRefuses(t *testing.T) {
	s, _ := made(t)
	c := newController(s)
	for _, overlap := range []time.Duration{-time.Second, maxOverlap + 1} {
		_, err := c.RotateKeys(t.Context(), "photos", "", overlap)
		wantKind(t, overlap.String(), err, storage.Invalid)
	}
	_, err := c.RotateKeys(t.Context(), "nothing", "", 0)
	wantKind(t, "no volume", err, storage.NotFound)
	for _, test := range []struct {
		phase storage.Phase
		want  storage.Kind
	}{{storage.Creating, storage.Busy}, {storage.Deleting, storage.InUse}, {storage.Archived, storage.InUse}} {
		r, err := s.GetRecord(t.Context(), "photos")
		must(t, err)
		r.Phase = test.phase
		_, err = s.UpdateRecord(t.Context(), r)
		must(t, err)
		_, err = c.RotateKeys(t.Context(), "photos", "", 0)
		wantKind(t, string(test.phase), err, test.want)
		if err != nil && !strings.Contains(err.Error(), "photos") {
			t.Errorf("%v does not name the volume", err)
		}
	}
}
