package seaweed

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// The filer's rules by path are one JSON document for all of the cluster, and others
// write it too: the gateway's quotas, weed shell. So it is taken apart no further
// than needed, and what is not ours goes back as it came. Two things are not to be
// added: a mark of our own, since the filer refuses a document with a field that it
// does not know, all of it; and a second rule for the same prefix, since it takes the
// last one.

// rules is the document.
type rules struct {
	all       map[string]json.RawMessage
	locations []map[string]json.RawMessage
}

// The names of what we read and write of a rule, each in the form that weed writes
// and in the one that it reads as well.
var (
	keyLocations   = []string{"locations"}
	keyPrefix      = []string{"locationPrefix", "location_prefix"}
	keyReplication = []string{"replication"}
	keyDiskType    = []string{"diskType", "disk_type"}
	keyDataCenter  = []string{"dataCenter", "data_center"}
)

// parseRules reads the document; an empty one has no rules.
func parseRules(body []byte) (rules, error) {
	r := rules{all: map[string]json.RawMessage{}}
	if len(bytes.TrimSpace(body)) == 0 {
		return r, nil
	}
	err := json.Unmarshal(body, &r.all)
	if raw := r.all[keyLocations[0]]; err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &r.locations)
	}
	if err != nil {
		return r, storage.Errorf(storage.Corrupt, "the rules in %s/%s cannot be read, and the filer takes none of them; mend them by weed shell: %w", rulesDir, rulesName, err)
	}
	return r, nil
}

// encode is the reverse.
func (r rules) encode() ([]byte, error) {
	all := maps.Clone(r.all)
	raw, err := json.Marshal(r.locations)
	if err == nil {
		all[keyLocations[0]] = raw
		raw, err = json.MarshalIndent(all, "", "  ")
	}
	return raw, err
}

// find returns the place of the rule that the filer takes for exactly that prefix,
// -1 when there is none.
func (r rules) find(prefix string) int {
	for i, l := range slices.Backward(r.locations) {
		if text(l, keyPrefix) == prefix {
			return i
		}
	}
	return -1
}

// placementIn is what a rule says of placement.
func placementIn(l map[string]json.RawMessage) storage.Placement {
	return storage.Placement{Replication: text(l, keyReplication), DiskType: text(l, keyDiskType), DataCenter: text(l, keyDataCenter)}
}

// add makes a rule.
func (r *rules) add(prefix string, p storage.Placement) {
	l := map[string]json.RawMessage{}
	for _, f := range []struct {
		keys  []string
		value string
	}{{keyPrefix, prefix}, {keyReplication, p.Replication}, {keyDiskType, p.DiskType}, {keyDataCenter, p.DataCenter}} {
		if raw, err := json.Marshal(f.value); err == nil && f.value != "" { // a string always has a form
			l[f.keys[0]] = raw
		}
	}
	r.locations = append(r.locations, l)
}

// take takes what a rule says of placement away, and the rule with it if it says
// nothing else.
func (r *rules) take(i int) {
	l := maps.Clone(r.locations[i])
	for _, key := range slices.Concat(keyReplication, keyDiskType, keyDataCenter) {
		delete(l, key)
	}
	r.locations = slices.Clone(r.locations)
	r.locations[i] = l
	for key, raw := range l {
		if !slices.Contains(keyPrefix, key) && !nothing(raw) {
			return
		}
	}
	r.locations = slices.Delete(r.locations, i, i+1)
}

// text is the field of a rule that has one of the names; "" where it is no text.
func text(l map[string]json.RawMessage, keys []string) string {
	for _, key := range keys {
		var s string
		if raw, ok := l[key]; ok && json.Unmarshal(raw, &s) == nil {
			return s
		}
	}
	return ""
}

// nothing reports whether a field has the value that it has when it is left out: weed
// writes all fields.
func nothing(raw json.RawMessage) bool {
	return slices.Contains([]string{`""`, "false", "0", `"0"`, "null"}, string(bytes.TrimSpace(raw)))
}
