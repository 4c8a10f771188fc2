package storage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func whole() Record {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	r := Record{
		Version: RecordVersion, ID: "v", Name: "pvc-v", Bucket: "v-bucket", Capacity: 1 << 40, Access: Single,
		Parameters: map[string]string{"a": "b"}, User: "holdfast-v", Keys: Keys{Access: "AK", Secret: "hush"},
		Placement: Placement{Replication: "001", DiskType: "ssd", DataCenter: "dc1"},
		Phase:     Ready, Created: at,
	}
	r.Grant("node-1", Lease{For: time.Minute, Grace: time.Second, Path: "/p"}, at)
	return r
}

func TestRecordForm(t *testing.T) {
	body, err := EncodeRecord(whole())
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRecord("v", body)
	if err != nil || !reflect.DeepEqual(got, whole()) {
		t.Errorf("%+v, %v\nwant %+v", got, err, whole())
	}
}

// What was written before there were versions is read.
func TestRecordBeforeVersions(t *testing.T) {
	got, err := ParseRecord("v", []byte(`{"id":"v","name":"v","bucket":"v","capacity":1,"access":"shared","user":"u","keys":{"access":"a","secret":"s"},"phase":"ready","created":"2026-11-22T10:00:00Z","leases":{"n":{"until":"2026-11-22T10:01:00Z","path":"/p"}}}`))
	if err != nil || got.Leases["n"].Path != "/p" || got.Version != RecordVersion {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRecordRefuses(t *testing.T) {
	edit := func(key string, value any) []byte {
		body, err := EncodeRecord(whole())
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(body, &fields); err != nil {
			t.Fatal(err)
		}
		fields[key] = value
		if body, err = json.Marshal(fields); err != nil {
			t.Fatal(err)
		}
		return body
	}
	for what, test := range map[string]struct {
		body  []byte
		kind  Kind
		words string
	}{
		"newer":       {edit("version", RecordVersion+1), Unsupported, "newer Holdfast"},
		"negative":    {edit("version", -1), Unsupported, "version -1"},
		"new field":   {edit("tier", "cold"), Unsupported, "tier"},
		"another's":   {edit("id", "w"), Corrupt, `"w"`},
		"access":      {edit("access", "exclusive"), Corrupt, "shared, single or read-only"},
		"phase":       {edit("phase", ""), Corrupt, "creating, ready, deleting or archived"},
		"on delete":   {edit("onDelete", "keep"), Corrupt, "delete, retain or archive"},
		"placement":   {edit("placement", map[string]any{"replication": "1"}), Corrupt, "three digits"},
		"own folder":  {edit("prefix", "a"), Corrupt, `folder "a"`},
		"capacity":    {edit("capacity", -1), Corrupt, "capacity -1"},
		"lease":       {edit("leases", map[string]any{"n": map[string]any{"for": 2 * time.Hour}}), Corrupt, `"n"`},
		"lease epoch": {edit("leases", map[string]any{"n": map[string]any{"epoch": 9}}), Corrupt, "epoch 9"},
		"empty":       {nil, Corrupt, "record of volume"},
		"two":         {append(edit("name", "v"), edit("name", "v")...), Corrupt, "record of volume"},
		"large":       {edit("name", strings.Repeat("x", MaxRecord)), Corrupt, fmt.Sprint(MaxRecord)},
	} {
		_, err := ParseRecord("v", test.body)
		if KindOf(err) != test.kind || err == nil || !strings.Contains(err.Error(), test.words) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v (%v), want %v with %q", what, err, KindOf(err), test.kind, test.words)
		}
	}
	r := whole()
	r.Name = strings.Repeat("x", MaxRecord)
	if _, err := EncodeRecord(r); !Is(err, Full) {
		t.Errorf("encode a large one: %v", err)
	}
}

// No way of printing or logging a record shows the secret.
func TestRecordKeepsItsSecret(t *testing.T) {
	r := whole()
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("x", slog.Any("record", r), slog.Any("record", &r), slog.Any("keys", r.Keys), slog.Any("keys", &r.Keys))
	}
	_, _ = fmt.Fprintf(&out, "%v %+v %#v %v %+v %#v", r, r, r, r.Keys, &r, r.Keys)
	if strings.Contains(out.String(), "hush") {
		t.Errorf("the secret is shown: %s", out.String())
	}
}

// FuzzRecord: a record that is damaged in any way is refused, or read and written
// back without a change.
func FuzzRecord(f *testing.F) {
	body, err := EncodeRecord(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"id":"v","access":"shared","phase":"ready","leases":{"n":{"until":"2026-11-22T10:01:00Z"}}}`))
	f.Add([]byte(`{"version":2,"id":"v"}`))
	f.Add([]byte(`{"id":"v","access":"single","phase":"ready","epoch":18446744073709551615,"leases":{"":{"for":-1}}}`))
	f.Add(body[:len(body)/2])
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRecord("v", body)
		if err != nil {
			if k := KindOf(err); k != Corrupt && k != Unsupported {
				t.Fatalf("refused as %v: %v", k, err)
			}
			return
		}
		var s Sightings
		for _, node := range s.Live(&r) {
			if s.Left(&r, node) < 0 {
				t.Fatal("less than nothing is left")
			}
		}
		again, err := EncodeRecord(r)
		if Is(err, Full) || Is(err, Invalid) { // a time that JSON cannot write, or escapes that make it longer
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseRecord("v", again)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, again)
		}
		third, err := EncodeRecord(back)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("written back as another record (%v)\n%s\n%s", err, again, third)
		}
	})
}

// TestMountedFor: the latest group is the last one, each is there once, and there are
// not ever more of them.
func TestMountedFor(t *testing.T) {
	var r Record
	for _, g := range []uint32{1, 2, 1} {
		r.MountedFor(g)
	}
	if !slices.Equal(r.Groups, []uint32{2, 1}) {
		t.Errorf("groups %v", r.Groups)
	}
	before := r.Groups
	for g := range uint32(2 * maxGroups) {
		r.MountedFor(100 + g)
	}
	if n := len(r.Groups); n != maxGroups || r.Groups[n-1] != 100+2*maxGroups-1 || r.Groups[0] != 100+maxGroups {
		t.Errorf("%d groups: %v", n, r.Groups)
	}
	if !slices.Equal(before, []uint32{2, 1}) {
		t.Errorf("another copy of the record was changed: %v", before)
	}
}
