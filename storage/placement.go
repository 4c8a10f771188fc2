package storage

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// This file says where, and how often, content is stored, and whether the servers
// that a store has now can do it. The judgement is SeaweedFS's own (it looks for
// servers with room in this order: data center, racks, servers), made before anything
// is written: its refusal would come with the first write, after seconds, as a text.

// Placement is how the content of a volume is stored. What is empty is left to the
// cluster.
type Placement struct {
	// Replication is three digits, how many further copies of each chunk there are: in
	// other data centers, in other racks of the data center, on other servers of the
	// rack. As a number at most 255, since it is kept in a byte.
	Replication string `json:"replication,omitempty"`
	// DiskType is the kind of disk, in small letters: hdd, ssd, or what the volume
	// servers were started with.
	DiskType string `json:"diskType,omitempty"`
	// DataCenter is where the first copy is.
	DataCenter string `json:"dataCenter,omitempty"`
}

// DefaultDisk is the kind of a disk that nobody gave a kind.
const DefaultDisk = "hdd"

var replicationPattern = regexp.MustCompile(`^([01][0-9]{2}|2[0-4][0-9]|25[0-5])$`)

// IsZero reports whether all is left to the cluster.
func (p Placement) IsZero() bool { return p == Placement{} }

// Copies is how many copies there are of each chunk, 0 where the cluster decides.
func (p Placement) Copies() int {
	if p.Replication == "" {
		return 0
	}
	n := 1
	for _, digit := range p.Replication {
		n += int(digit - '0')
	}
	return n
}

// Check says whether p can be a placement at all.
func (p Placement) Check() error {
	switch {
	case p.Replication != "" && !replicationPattern.MatchString(p.Replication):
		return Errorf(Invalid, "replication %q: three digits are allowed, as a number at most 255: further copies in other data centers, in other racks, on other servers", p.Replication)
	case p.DiskType != strings.ToLower(p.DiskType):
		return Errorf(Invalid, "diskType %q: small letters are allowed", p.DiskType)
	}
	return nil
}

// String is for people: "replication 001, diskType ssd".
func (p Placement) String() string {
	var words []string
	for _, w := range [][2]string{{"replication", p.Replication}, {"diskType", p.DiskType}, {"dataCenter", p.DataCenter}} {
		if w[1] != "" {
			words = append(words, w[0]+" "+w[1])
		}
	}
	return strings.Join(words, ", ")
}

// Server is one that stores content.
type Server struct {
	Name, Rack, DataCenter string
	// Room is, for each kind of disk that the server has, how many more of the store's
	// own volumes fit.
	Room map[string]int64
	// Free is how many more bytes those disks take; a kind is missing where that is not
	// known.
	Free map[string]int64
}

// Topology is all servers of a store, as of now.
type Topology []Server

// Check says whether content can be stored now as p has it: Invalid, with what is
// possible, where the servers are not there for it, and Full where they have no room.
func (t Topology) Check(p Placement) error {
	if err := p.Check(); err != nil {
		return err
	}
	kinds, centers := map[string]bool{}, map[string]bool{}
	for _, s := range t {
		centers[s.DataCenter] = true
		for kind := range s.Room {
			kinds[kind] = true
		}
	}
	switch {
	case len(t) == 0:
		return Errorf(Unavailable, "there is no volume server now")
	case p.DiskType != "" && !kinds[p.DiskType]:
		return Errorf(Invalid, "diskType %q: no volume server has such disks; %s", p.DiskType, possible(slices.Collect(maps.Keys(kinds))))
	case p.DataCenter != "" && !centers[p.DataCenter]:
		return Errorf(Invalid, "dataCenter %q: no volume server is in it; %s", p.DataCenter, possible(slices.Collect(maps.Keys(centers))))
	}
	one := p
	one.Replication = "000"
	if !t.room(one).holds(one) {
		kind := Invalid // such disks are elsewhere
		for _, s := range t {
			if _, has := s.Room[p.DiskType]; (has || p.DiskType == "") && (p.DataCenter == "" || p.DataCenter == s.DataCenter) {
				kind = Full
			}
		}
		return Errorf(kind, "%sno volume server has room for it now", p.prefixed())
	}
	if room := t.room(p); p.Replication != "" && !room.holds(p) {
		var allowed []string
		for n := range 256 {
			other := p
			if other.Replication = fmt.Sprintf("%03d", n); room.holds(other) {
				allowed = append(allowed, other.Replication)
			}
		}
		with := p
		with.Replication = ""
		return Errorf(Invalid, "replication %q (further copies: %c in other data centers, %c in other racks, %c on other servers of the rack): the volume servers%s are %s; %s",
			p.Replication, p.Replication[0], p.Replication[1], p.Replication[2], with.suffixed(), room, possible(allowed))
	}
	return nil
}

func (p Placement) prefixed() string {
	p.Replication = ""
	if p.IsZero() {
		return ""
	}
	return p.String() + ": "
}

func (p Placement) suffixed() string {
	if p.DiskType == "" {
		return ""
	}
	return " with room on disks of type " + p.DiskType
}

// Free is how much more content the servers take that p names by their disks and their
// data center, each copy counted; ok is false when one of them does not tell. How often
// content is stored is not known where p leaves it to the store: then it is counted once.
func (t Topology) Free(p Placement) (bytes int64, ok bool) {
	kind := cmp.Or(p.DiskType, DefaultDisk)
	for _, s := range t {
		elsewhere := p.DataCenter != "" && s.DataCenter != p.DataCenter && (p.Replication == "" || p.Replication[0] == '0')
		if _, has := s.Room[kind]; !has || elsewhere {
			continue
		}
		free, known := s.Free[kind]
		if !known {
			return 0, false
		}
		bytes, ok = bytes+free, true
	}
	return bytes / max(int64(p.Copies()), 1), ok
}

// room is how many servers could take content, by data center and rack.
type room map[string]map[string]int

// room counts the servers that could take content as p has it. Where p does not say
// which disks, the usual ones count, or any where no server has those.
func (t Topology) room(p Placement) room {
	kind := p.DiskType
	if kind == "" && slices.ContainsFunc(t, func(s Server) bool { _, has := s.Room[DefaultDisk]; return has }) {
		kind = DefaultDisk
	}
	r := room{}
	for _, s := range t {
		for k, n := range s.Room {
			if (k == kind || kind == "") && n > 0 {
				if r[s.DataCenter] == nil {
					r[s.DataCenter] = map[string]int{}
				}
				r[s.DataCenter][s.Rack]++
				break
			}
		}
	}
	return r
}

// holds reports whether there are servers for all copies. SeaweedFS wants as many
// servers in each of the racks as in the first one.
func (r room) holds(p Placement) bool {
	centers, racks, servers := int(p.Replication[0]-'0'), int(p.Replication[1]-'0'), int(p.Replication[2]-'0')
	if len(r) < centers+1 {
		return false
	}
	for center, in := range r {
		if p.DataCenter != "" && center != p.DataCenter {
			continue
		}
		enough := 0
		for _, n := range in {
			if n > servers {
				enough++
			}
		}
		if enough > racks {
			return true
		}
	}
	return false
}

// String is for people.
func (r room) String() string {
	var words []string
	for _, center := range slices.Sorted(maps.Keys(r)) {
		for _, rack := range slices.Sorted(maps.Keys(r[center])) {
			words = append(words, fmt.Sprintf("%d in rack %s of data center %s", r[center][rack], rack, center))
		}
	}
	return some(words)
}

// possible says what of words can be had.
func possible(words []string) string {
	slices.Sort(words)
	switch len(words) {
	case 0:
		return "nothing is possible now"
	case 1:
		return words[0] + " is possible now"
	}
	return some(words) + " are possible now"
}

// some are the first of many words.
func some(words []string) string {
	const most = 16
	if len(words) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
	}
	if len(words) < 2 {
		return cmp.Or(strings.Join(words, ""), "none")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// Placer keeps the rules by which the store places new content of a bucket, or of a
// folder of one: what comes from mounts and what comes over S3. A rule of a folder
// counts for more than that of its bucket, and what is there already stays where it is.
type Placer interface {
	// Topology is what servers there are.
	Topology(ctx context.Context) (Topology, error)
	// Placed returns the rule for exactly that root, whoever made it; one that says
	// nothing of placement is the zero Placement. found is false when there is none.
	Placed(ctx context.Context, b BucketName, folder Path) (p Placement, found bool, err error)
	// Place makes the rule: Exists when there is another one. The same one is fine. What
	// is written from then on is placed by it.
	Place(ctx context.Context, b BucketName, folder Path, p Placement) error
	// Unplace takes p out of the rules. It changes nothing when the rule of that root is
	// not p, or there is none.
	Unplace(ctx context.Context, b BucketName, folder Path, p Placement) error
}
