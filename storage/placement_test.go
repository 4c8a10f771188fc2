package storage

import (
	"strings"
	"testing"
)

// servers are name@rack@center[:kind=room…].
func servers(list ...string) Topology {
	var t Topology
	for _, text := range list {
		place, kinds, _ := strings.Cut(text, ":")
		words := strings.Split(place, "@")
		s := Server{Name: words[0], Rack: words[1], DataCenter: words[2], Room: map[string]int64{}}
		if kinds == "" {
			kinds = "hdd"
		}
		for kind := range strings.SplitSeq(kinds, ",") {
			name, full := strings.CutSuffix(kind, "=0")
			s.Room[name] = 7
			if full {
				s.Room[name] = 0
			}
		}
		t = append(t, s)
	}
	return t
}

func TestTopologyCheck(t *testing.T) {
	one := servers("a@r@dc")
	two := servers("a@r@dc", "b@r@dc")
	racks := servers("a@r1@dc", "b@r2@dc", "c@r2@dc")
	wide := servers("a@r1@dc1", "b@r2@dc1", "c@r1@dc2:hdd,ssd", "d@r2@dc2:ssd=0")
	for what, test := range map[string]struct {
		have Topology
		want Placement
		kind Kind
		says []string
	}{
		"nothing asked":            {have: one},
		"no server":                {want: Placement{Replication: "000"}, kind: Unavailable, says: []string{"no volume server"}},
		"one copy on one":          {have: one, want: Placement{Replication: "000"}},
		"two copies on one":        {have: one, want: Placement{Replication: "001"}, kind: Invalid, says: []string{`replication "001"`, "1 in rack r of data center dc", "000 is possible now"}},
		"two copies on two":        {have: two, want: Placement{Replication: "001"}},
		"three copies on two":      {have: two, want: Placement{Replication: "002"}, kind: Invalid, says: []string{"000 and 001 are possible now"}},
		"another rack on one":      {have: two, want: Placement{Replication: "010"}, kind: Invalid, says: []string{`replication "010"`, "1 in other racks", "000 and 001 are possible now"}},
		"another rack":             {have: racks, want: Placement{Replication: "010"}},
		"both racks want as many":  {have: racks, want: Placement{Replication: "011"}, kind: Invalid, says: []string{"000, 001 and 010 are possible now"}},
		"another center on one":    {have: racks, want: Placement{Replication: "100"}, kind: Invalid, says: []string{"1 in other data centers"}},
		"another center":           {have: wide, want: Placement{Replication: "110"}},
		"center without racks":     {have: wide, want: Placement{Replication: "010", DataCenter: "dc2"}, kind: Invalid, says: []string{"000 and 100 are possible now"}},
		"center":                   {have: wide, want: Placement{DataCenter: "dc2"}},
		"unknown center":           {have: wide, want: Placement{DataCenter: "dc3"}, kind: Invalid, says: []string{`dataCenter "dc3"`, "dc1 and dc2 are possible now"}},
		"disk":                     {have: wide, want: Placement{DiskType: "ssd"}},
		"unknown disk":             {have: wide, want: Placement{DiskType: "nvme"}, kind: Invalid, says: []string{`diskType "nvme"`, "hdd and ssd are possible now"}},
		"disk of one server":       {have: wide, want: Placement{DiskType: "ssd", Replication: "001"}, kind: Invalid, says: []string{"disks of type ssd", "000 is possible now"}},
		"disk elsewhere":           {have: wide, want: Placement{DiskType: "ssd", DataCenter: "dc1"}, kind: Invalid, says: []string{"diskType ssd, dataCenter dc1"}},
		"no room":                  {have: servers("a@r@dc:ssd=0", "b@r@dc"), want: Placement{DiskType: "ssd"}, kind: Full, says: []string{"diskType ssd", "no volume server has room"}},
		"usual disks are full":     {have: servers("a@r@dc:hdd=0,ssd"), want: Placement{Replication: "000"}, kind: Full, says: []string{"no volume server has room"}},
		"other disks than usual":   {have: servers("a@r@dc:ssd", "b@r@dc:ssd"), want: Placement{Replication: "001"}},
		"a server that is full":    {have: servers("a@r@dc", "b@r@dc:hdd=0"), want: Placement{Replication: "001"}, kind: Invalid, says: []string{"000 is possible now"}},
		"letters":                  {have: two, want: Placement{Replication: "0x1"}, kind: Invalid, says: []string{"three digits"}},
		"short":                    {have: two, want: Placement{Replication: "1"}, kind: Invalid, says: []string{"three digits"}},
		"more than a byte":         {have: two, want: Placement{Replication: "256"}, kind: Invalid, says: []string{"at most 255"}},
		"many racks, many answers": {have: servers("a@1@d", "b@1@d", "c@1@d", "d@1@d", "e@2@d", "f@2@d", "g@2@d", "h@2@d", "i@3@d", "j@3@d", "k@3@d", "l@3@d", "m@4@d", "n@4@d", "o@4@d", "p@4@d", "q@5@d", "r@5@d", "s@5@d", "t@5@d"), want: Placement{Replication: "100"}, kind: Invalid, says: []string{"and 4 more are possible now"}},
	} {
		err := test.have.Check(test.want)
		if test.kind == Other {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if !Is(err, test.kind) {
			t.Errorf("%s: %v (%v), want %v", what, err, KindOf(err), test.kind)
			continue
		}
		for _, word := range test.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", what, err, word)
			}
		}
	}
}

func TestCopies(t *testing.T) {
	for replication, want := range map[string]int{"": 0, "000": 1, "001": 2, "112": 5} {
		if got := (Placement{Replication: replication}).Copies(); got != want {
			t.Errorf("%q: %d copies, want %d", replication, got, want)
		}
	}
}

// TestTopologyFree: what a StorageClass's disks take, which the store as a whole does
// not tell.
func TestTopologyFree(t *testing.T) {
	have := servers("a@r1@dc1", "b@r2@dc1", "c@r1@dc2:hdd,ssd", "d@r1@dc2:ssd")
	for i := range have {
		have[i].Free = map[string]int64{}
		for kind := range have[i].Room {
			have[i].Free[kind] = 100
		}
	}
	have[0].Free["hdd"] = 40
	for p, want := range map[Placement]int64{
		{}:                                      240,
		{DiskType: "ssd"}:                       200,
		{DataCenter: "dc1"}:                     140,
		{Replication: "001"}:                    120,
		{DiskType: "ssd", Replication: "001"}:   100,
		{DataCenter: "dc1", Replication: "100"}: 120,
	} {
		if got, known := have.Free(p); !known || got != want {
			t.Errorf("%v: %d, %v; want %d", p, got, known, want)
		}
	}
	delete(have[3].Free, "ssd")
	for _, p := range []Placement{{DiskType: "ssd"}, {DiskType: "nvme"}, {DataCenter: "dc3"}} {
		if got, known := have.Free(p); known {
			t.Errorf("%v: %d, though a server does not tell", p, got)
		}
	}
}
