package driver

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage/memory"
)

// changes are what somebody may do to a volume's user by hand.
var changes = map[string]func(*testing.T, *memory.Store){
	"the user is gone": func(t *testing.T, s *memory.Store) { must(t, s.Revoke(t.Context(), userOf("photos"))) },
	"its key is gone": func(t *testing.T, s *memory.Store) {
		must(t, s.EndKeys(t.Context(), userOf("photos"), []string{keysIn(t, s).Access}))
	},
	"its policy is another": func(t *testing.T, s *memory.Store) {
		must(t, s.Restore(t.Context(), userOf("photos"), "elsewhere", ""))
	},
}

// TestUserChangedByHand is told by the volume's health, and a repeated creation and a
// rotation make it right, whatever step a crash comes at.
func TestUserChangedByHand(t *testing.T) {
	for what, change := range changes {
		for how, mend := range map[string]func(*testing.T, *Controller) error{
			"created again": func(t *testing.T, c *Controller) error {
				_, err := c.CreateVolume(t.Context(), ask("photos"))
				return err
			},
			"rotated": func(t *testing.T, c *Controller) error {
				_, err := c.RotateKeys(t.Context(), "photos", "", 0)
				return err
			},
			"rotated with an overlap": func(t *testing.T, c *Controller) error {
				_, err := c.RotateKeys(t.Context(), "photos", "", time.Hour)
				return err
			},
		} {
			t.Run(what+", "+how, func(t *testing.T) {
				prepare := func(t *testing.T, s *memory.Store) {
					_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
					must(t, err)
					wantHealth(t, s, "")
					change(t, s)
					wantHealth(t, s, "KeysChanged")
				}
				check := func(t *testing.T, s *memory.Store) {
					wantHealth(t, s, "")
					if !s.Allowed(keysIn(t, s), "photos") || s.Allowed(keysIn(t, s), "elsewhere") {
						t.Error("the keys in the record do not open the bucket, or open another one")
					}
				}
				s := memory.New()
				prepare(t, s)
				must(t, mend(t, newController(s)))
				check(t, s)
				if how != "created again" || !strings.Contains(what, "policy") { // which is one step
					eachCrash(t, prepare, func(c *Controller) error { return mend(t, c) }, check)
				}
			})
		}
	}
}

// TestKeyThatIsGoneStaysGone: somebody may have ended it for a reason.
func TestKeyThatIsGoneStaysGone(t *testing.T) {
	for _, what := range []string{"the user is gone", "its key is gone"} {
		s, old := made(t)
		changes[what](t, s)
		_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
		must(t, err)
		if s.Allowed(old, "photos") {
			t.Errorf("%s: the key came back", what)
		}
		wantAllowed(t, s, keysIn(t, s))
	}
	// And nothing is changed where nothing is wrong.
	s, old := made(t)
	_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	wantAllowed(t, s, old)
}

// wantHealth wants that reason, or none when it is empty, from the controller.
func wantHealth(t *testing.T, s *memory.Store, reason string) {
	t.Helper()
	resp, err := newController(s).ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: "photos"})
	must(t, err)
	have := resp.GetVolumeHealth().GetHealthStatuses()
	if reason == "" && len(have) > 0 || reason != "" && (len(have) != 1 || have[0].GetReason() != reason || !strings.Contains(have[0].GetMessage(), "rotate-keys")) {
		t.Errorf("health %v, want %q", have, reason)
	}
}
