package driver

import (
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

func wantRule(t *testing.T, s *memory.Store, b storage.BucketName, folder storage.Path, want storage.Placement) {
	t.Helper()
	got, found, err := s.Placed(t.Context(), b, folder)
	must(t, err)
	if got != want || found != !want.IsZero() {
		t.Errorf("rule of bucket %s, folder %q: %q, found %v, want %q", b, folder, got, found, want)
	}
}

// TestPlacementIsARule: for the volume's root, with what was asked for, from its
// creation to its deletion; and it is shown.
func TestPlacementIsARule(t *testing.T) {
	twice := storage.Placement{Replication: "001", DiskType: "hdd"}
	for what, test := range map[string]struct {
		params   []string
		bucket   storage.BucketName
		folder   storage.Path
		archived bool
	}{
		"own bucket": {params: []string{}, bucket: "photos"},
		"retained":   {params: []string{"onDelete", "retain"}, bucket: "photos"},
		"adopted":    {params: []string{"bucketName", "theirs", "onDelete", "retain"}, bucket: "theirs"},
		"folder":     {params: []string{"bucketName", "theirs", "prefix", "a/b", "onDelete", "retain"}, bucket: "theirs", folder: "a/b"},
		"archived":   {params: []string{"onDelete", "archive"}, bucket: "photos", archived: true},
	} {
		t.Run(what, func(t *testing.T) {
			s := memory.New()
			c := newController(s)
			must(t, s.CreateBucket(t.Context(), "theirs"))
			want := wish("photos", append(test.params, "replication", "001", "disk", "hdd")...)
			made, err := c.CreateVolume(t.Context(), want)
			must(t, err)
			wantRule(t, s, test.bucket, test.folder, twice)
			if shown := made.GetVolume().GetVolumeContext(); shown["replication"] != "001" || shown["diskType"] != "hdd" || shown["dataCenter"] != "" {
				t.Errorf("shown as %v", shown)
			}
			again, err := c.CreateVolume(t.Context(), want)
			must(t, err)
			if again.String() != made.String() {
				t.Errorf("%v\n%v", made, again)
			}
			_, err = c.CreateVolume(t.Context(), wish("photos", append(test.params, "replication", "000", "disk", "hdd")...))
			wantKind(t, "another placement", err, storage.Exists)
			_, err = c.CreateVolume(t.Context(), wish("photos", test.params...))
			wantKind(t, "no placement", err, storage.Exists)
			wantRule(t, s, test.bucket, test.folder, twice)

			remove := func() {
				t.Helper()
				_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
				must(t, err)
			}
			remove()
			if test.archived {
				wantRule(t, s, test.bucket, test.folder, twice)
				must(t, s.DeleteBucket(t.Context(), test.bucket))
				remove()
			}
			if n := s.Rules(); n != 0 {
				t.Errorf("%d rules are left", n)
			}
		})
	}
}

// TestPlacementRefused: before anything is made, and it is said what would do.
func TestPlacementRefused(t *testing.T) {
	for what, test := range map[string]struct {
		params  []string
		prepare func(*memory.Store)
		kind    storage.Kind
		words   []string
	}{
		"another rack": {params: []string{"replication", "010"}, kind: storage.Invalid, words: []string{`replication "010"`, "000 and 001 are possible now"}},
		"one server": {params: []string{"replication", "001"}, prepare: func(s *memory.Store) {
			one, _ := s.Topology(t.Context())
			s.SetTopology(one[:1])
		}, kind: storage.Invalid, words: []string{`replication "001"`, "000 is possible now"}},
		"disk":      {params: []string{"disk", "ssd"}, kind: storage.Invalid, words: []string{`diskType "ssd"`, "hdd is possible now"}},
		"center":    {params: []string{"dataCenter", "dc9"}, kind: storage.Invalid, words: []string{`dataCenter "dc9"`, "DefaultDataCenter is possible now"}},
		"no server": {params: []string{"replication", "000"}, prepare: func(s *memory.Store) { s.SetTopology(nil) }, kind: storage.Unavailable, words: []string{"no volume server"}},
		"somebody's rule": {params: []string{"replication", "001"}, prepare: func(s *memory.Store) {
			must(t, s.Place(t.Context(), "photos", "", storage.Placement{Replication: "000"}))
		}, kind: storage.Exists, words: []string{"somebody else", "replication 000", "fs.configure"}},
		"somebody's equal rule": {params: []string{"replication", "001"}, prepare: func(s *memory.Store) {
			must(t, s.Place(t.Context(), "photos", "", storage.Placement{Replication: "001"}))
		}, kind: storage.Exists, words: []string{"somebody else"}},
		"a rule for something else": {params: []string{"replication", "001"}, prepare: func(s *memory.Store) {
			must(t, s.Place(t.Context(), "photos", "", storage.Placement{}))
		}, kind: storage.Exists, words: []string{"another purpose"}},
	} {
		s := memory.New()
		if test.prepare != nil {
			test.prepare(s)
		}
		before := s.Rules()
		_, err := newController(s).CreateVolume(t.Context(), wish("photos", test.params...))
		wantKind(t, what, err, test.kind)
		for _, word := range test.words {
			if err != nil && !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", what, err, word)
			}
		}
		if records, _ := s.ListRecords(t.Context(), "", 1); len(records) > 0 || len(s.BucketNames()) > 0 || s.Rules() != before {
			t.Errorf("%s: left behind: %v, %v, %d rules", what, records, s.BucketNames(), s.Rules())
		}
		_, err = newController(s).DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		must(t, err)
		if s.Rules() != before {
			t.Errorf("%s: the deletion of what was never made took somebody's rule", what)
		}
	}
	c := NewController(ControllerDeps{Records: memory.New()})
	_, err := c.CreateVolume(t.Context(), wish("photos", "replication", "001"))
	wantKind(t, "no placer", err, storage.Invalid)
}

// TestOneRuleForARoot: a second volume there is refused, and the deletion of one that
// was not placed leaves the rule to the one that was.
func TestOneRuleForARoot(t *testing.T) {
	s := memory.New()
	c := newController(s)
	place := storage.Placement{Replication: "001"}
	folder := func(name string, more ...string) *csi.CreateVolumeRequest {
		return wish(name, append([]string{"bucketName", "data", "prefix", "a", "onDelete", "retain"}, more...)...)
	}
	_, err := c.CreateVolume(t.Context(), folder("first", "replication", "001"))
	must(t, err)
	_, err = c.CreateVolume(t.Context(), folder("second", "replication", "001"))
	wantKind(t, "the second", err, storage.Exists)
	if err != nil && !strings.Contains(err.Error(), "first") {
		t.Errorf("%v does not name the first", err)
	}
	_, err = c.CreateVolume(t.Context(), folder("third"))
	must(t, err)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "third"})
	must(t, err)
	wantRule(t, s, "data", "a", place)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "first"})
	must(t, err)
	wantRule(t, s, "data", "a", storage.Placement{})
}

// TestTwoVolumesAskForOneRule: both were admitted before the other's record was there.
func TestTwoVolumesAskForOneRule(t *testing.T) {
	for _, order := range [][]storage.VolumeID{{"first", "second"}, {"second", "first"}} {
		s := memory.New()
		ask := func(name string) *csi.CreateVolumeRequest {
			return wish(name, "bucketName", "data", "prefix", "a", "onDelete", "retain", "replication", "001")
		}
		// The second one dies once its record is written.
		_, err := (&crasher{Store: s, left: 1, after: true}).controller().CreateVolume(t.Context(), ask("second"))
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		r, err := s.GetRecord(t.Context(), "second")
		must(t, err)
		must(t, s.DeleteRecord(t.Context(), "second"))
		c := newController(s)
		_, err = c.CreateVolume(t.Context(), ask("first"))
		must(t, err)
		_, err = s.CreateRecord(t.Context(), r)
		must(t, err)
		_, err = c.CreateVolume(t.Context(), ask("second"))
		wantKind(t, "the second, repeated", err, storage.Exists)
		for i, id := range order {
			_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: string(id)})
			must(t, err)
			if i == 0 && id == "second" {
				wantRule(t, s, "data", "a", storage.Placement{Replication: "001"})
			}
		}
		if n := s.Rules(); n != 0 {
			t.Errorf("deleted in the order %v: %d rules are left", order, n)
		}
	}
}

// TestCrashLeavesNoRule: whatever dies in between, the repeated creation has the rule,
// and the repeated deletion none.
func TestCrashLeavesNoRule(t *testing.T) {
	eachCrash(t, func(*testing.T, *memory.Store) {}, func(c *Controller) error {
		_, err := c.CreateVolume(t.Context(), wish("photos", "replication", "001"))
		return err
	}, func(t *testing.T, s *memory.Store) {
		wantRule(t, s, "photos", "", storage.Placement{Replication: "001"})
	})
	eachCrash(t, func(*testing.T, *memory.Store) {}, func(c *Controller) error {
		_, err := c.CreateVolume(t.Context(), wish("photos", "replication", "001"))
		if err != nil && !storage.Is(err, storage.Busy) { // Busy: its deletion had begun
			return err
		}
		_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		return err
	}, func(t *testing.T, s *memory.Store) {
		if n := s.Rules(); n != 0 {
			t.Errorf("%d rules are left", n)
		}
	})
}

// TestCapacityOfAPlacement: two copies take twice the room, and there is none for what
// cannot be had.
func TestCapacityOfAPlacement(t *testing.T) {
	s := memory.New()
	s.SetSpace(storage.Space{Total: 100, Free: 40})
	c := newController(s)
	for _, test := range []struct {
		params map[string]string
		want   int64
	}{
		{nil, 40},
		{map[string]string{"replication": "000"}, 40},
		{map[string]string{"replication": "001"}, 20},
		{map[string]string{"replication": "010"}, 0},
		{map[string]string{"disk": "ssd"}, 0},
	} {
		resp, err := c.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: test.params})
		if err != nil || resp.GetAvailableCapacity() != test.want {
			t.Errorf("%v: %v, %v, want %d", test.params, resp, err, test.want)
		}
	}
}

// TestCapacityOfADiskType: the store as a whole does not tell disks apart, the servers do.
func TestCapacityOfADiskType(t *testing.T) {
	s := memory.New()
	s.SetSpace(storage.Space{Total: 1000, Free: 400})
	s.SetTopology(storage.Topology{{
		Name: "a", Rack: "r", DataCenter: "dc", Room: map[string]int64{"hdd": 7, "ssd": 7}, Free: map[string]int64{"hdd": 900, "ssd": 30},
	}})
	c := newController(s)
	for disk, want := range map[string]int64{"ssd": 30, "hdd": 400, "": 400} {
		params := map[string]string{"disk": disk}
		if disk == "" {
			params = nil
		}
		resp, err := c.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: params})
		if err != nil || resp.GetAvailableCapacity() != want {
			t.Errorf("%q: %v, %v, want %d", disk, resp, err, want)
		}
	}
}

// TestRuleGone: the health of a volume tells that somebody has taken its rule away.
func TestRuleGone(t *testing.T) {
	s := memory.New()
	c := newController(s)
	place := storage.Placement{Replication: "001"}
	_, err := c.CreateVolume(t.Context(), wish("photos", "replication", "001"))
	must(t, err)
	health := func() []*condition {
		t.Helper()
		resp, err := c.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: "photos"})
		must(t, err)
		return resp.GetVolumeHealth().GetHealthStatuses()
	}
	if h := health(); len(h) > 0 {
		t.Errorf("a whole volume: %v", h)
	}
	must(t, s.Unplace(t.Context(), "photos", "", place))
	if h := health(); len(h) != 1 || h[0].GetReason() != "RuleGone" || !strings.Contains(h[0].GetMessage(), "none") {
		t.Errorf("without its rule: %v", h)
	}
	other := storage.Placement{Replication: "000"}
	must(t, s.Place(t.Context(), "photos", "", other))
	if h := health(); len(h) != 1 || h[0].GetReason() != "RuleGone" || !strings.Contains(h[0].GetMessage(), "replication 000") {
		t.Errorf("with another rule: %v", h)
	}
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	wantRule(t, s, "photos", "", other)
}

// TestUnsettledVolumeHasNoRule: what died before it could make its rule does not take
// one that somebody else has made since.
func TestUnsettledVolumeHasNoRule(t *testing.T) {
	s := memory.New()
	_, err := (&crasher{Store: s, left: 1, after: true}).controller().CreateVolume(t.Context(), wish("photos", "replication", "001"))
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	theirs := storage.Placement{Replication: "001"}
	must(t, s.Place(t.Context(), "photos", "", theirs))
	_, err = newController(s).DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	wantRule(t, s, "photos", "", theirs)
}
