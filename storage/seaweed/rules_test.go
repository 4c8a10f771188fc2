package seaweed

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// theirs is a document as weed writes it after one of its own changes, with every
// field; and with a rule as a person may have written it.
const theirs = `{
  "version": 1,
  "locations": [
    {"locationPrefix": "/buckets/quota/", "collection": "", "replication": "", "ttl": "", "diskType": "", "fsync": false,
     "volumeGrowthCount": 0, "readOnly": true, "dataCenter": "", "rack": "", "maxFileNameLength": 0, "wormGracePeriodSeconds": "0"},
    {"location_prefix": "/buckets/person/", "disk_type": "ssd", "data_center": "dc1", "worm": false, "wormRetentionTimeSeconds": "9007199254740993"}
  ],
  "yetUnknown": {"a": [1.50]}
}`

func parsed(t *testing.T, body []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

// TestRulesOfOthersStay: whatever is added and taken, they stand as they stood.
func TestRulesOfOthersStay(t *testing.T) {
	r, err := parseRules([]byte(theirs))
	if err != nil {
		t.Fatal(err)
	}
	p := storage.Placement{Replication: "001", DiskType: "ssd", DataCenter: `a "b"`}
	r.add("/buckets/ours/", p)
	body, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if r, err = parseRules(body); err != nil || len(r.locations) != 3 {
		t.Fatalf("%s, %v", body, err)
	}
	i := r.find("/buckets/ours/")
	if i != 2 || placementIn(r.locations[i]) != p {
		t.Fatalf("found at %d in %s", i, body)
	}
	r.take(i)
	if body, err = r.encode(); err != nil || !reflect.DeepEqual(parsed(t, body), parsed(t, []byte(theirs))) {
		t.Errorf("%s, %v\nwant %s", body, err, theirs)
	}
	// Numbers that do not fit into a float are still the same.
	if got, want := string(r.locations[1]["wormRetentionTimeSeconds"]), `"9007199254740993"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := placementIn(r.locations[r.find("/buckets/person/")]); got != (storage.Placement{DiskType: "ssd", DataCenter: "dc1"}) {
		t.Errorf("the person's rule says %v", got)
	}
}

// TestTakeLeavesWhatOthersAdded: a rule of ours that weed has written again goes; one
// with something else in it keeps that.
func TestTakeLeavesWhatOthersAdded(t *testing.T) {
	for given, want := range map[string]string{
		`{"locations":[{"locationPrefix":"/b/","replication":"001","fsync":false,"ttl":"","readOnly":false,"volumeGrowthCount":0,"wormGracePeriodSeconds":"0","worm":null}]}`: `{"locations":[]}`,
		`{"locations":[{"locationPrefix":"/b/","replication":"001","readOnly":true}]}`:                                                                                        `{"locations":[{"locationPrefix":"/b/","readOnly":true}]}`,
		`{"locations":[{"location_prefix":"/b/","replication":"001","disk_type":"","maxFileNameLength":7}]}`:                                                                  `{"locations":[{"location_prefix":"/b/","maxFileNameLength":7}]}`,
	} {
		r, err := parseRules([]byte(given))
		if err != nil {
			t.Fatal(err)
		}
		r.take(r.find("/b/"))
		if body, err := r.encode(); err != nil || !reflect.DeepEqual(parsed(t, body), parsed(t, []byte(want))) {
			t.Errorf("%s: %s, %v", given, body, err)
		}
	}
}

// TestLastRuleCounts: of two for one prefix the filer takes the last.
func TestLastRuleCounts(t *testing.T) {
	r, err := parseRules([]byte(`{"locations":[{"locationPrefix":"/b/","replication":"000"},{"locationPrefix":"/b/","replication":"001"}]}`))
	if i := r.find("/b/"); err != nil || i != 1 {
		t.Errorf("%d, %v", i, err)
	}
	if i := r.find("/b"); i >= 0 {
		t.Errorf("a prefix of a prefix is found at %d", i)
	}
}

func TestRulesThatCannotBeRead(t *testing.T) {
	for _, body := range []string{"{", `[]`, `{"locations":{}}`, `{"locations":["x"]}`, `{"locations":[]} {}`} {
		if _, err := parseRules([]byte(body)); !storage.Is(err, storage.Corrupt) {
			t.Errorf("%s: %v, want Corrupt", body, err)
		}
	}
	for _, body := range []string{"", "\n", "{}", `{"locations":null}`} {
		if r, err := parseRules([]byte(body)); err != nil || len(r.locations) > 0 {
			t.Errorf("%q: %v, %v", body, r, err)
		}
	}
}

func TestMasterAddress(t *testing.T) {
	for weed, want := range map[string]string{"10.0.0.1:9333": "10.0.0.1:19333", "10.0.0.1:9333.9334": "10.0.0.1:9334", "master-0.ns:9333": "master-0.ns:19333", "[::1]:9333.1": "[::1]:1"} {
		if got, err := grpcAddress(weed); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", weed, got, err, want)
		}
	}
	for _, weed := range []string{"", "host", "host:x"} {
		if got, err := grpcAddress(weed); !storage.Is(err, storage.Corrupt) {
			t.Errorf("%q: %s, %v, want Corrupt", weed, got, err)
		}
	}
}
