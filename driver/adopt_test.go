package driver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// wish asks for a volume with parameters: name, value, name, value.
func wish(name string, params ...string) *csi.CreateVolumeRequest {
	req := ask(name)
	req.Parameters = map[string]string{
		"csi.storage.k8s.io/pvc/name": name, "csi.storage.k8s.io/pvc/namespace": "team",
	}
	for i := 0; i < len(params); i += 2 {
		req.Parameters[params[i]] = params[i+1]
	}
	return req
}

// TestWhichBucket is the rules of PARAMETERS.md.
func TestWhichBucket(t *testing.T) {
	const theirs = "a picture"
	for what, test := range map[string]struct {
		// there is a bucket, with this object.
		there, object string
		// other is a volume that was made before.
		other  *csi.CreateVolumeRequest
		params []string
		// What becomes of it: an error, or a bucket.
		fails   storage.Kind
		words   []string
		bucket  storage.BucketName
		folder  storage.Path
		adopted bool
	}{
		"new, fixed":                 {params: []string{"bucketName", "data"}, bucket: "data"},
		"new, template":              {params: []string{"bucketName", "${pvc.namespace}-${pvc.name}"}, bucket: "team-photos"},
		"new, retained":              {params: []string{"bucketName", "data", "onDelete", "retain"}, bucket: "data"},
		"there, fixed":               {there: "data", object: theirs, params: []string{"bucketName", "data"}, fails: storage.Invalid, words: []string{"data", "onDelete=retain"}},
		"there, fixed, delete":       {there: "data", params: []string{"bucketName", "data", "onDelete", "delete"}, fails: storage.Invalid, words: []string{"onDelete=retain"}},
		"there, fixed, retain":       {there: "data", object: theirs, params: []string{"bucketName", "data", "onDelete", "retain"}, bucket: "data", adopted: true},
		"there, fixed, archive":      {there: "data", object: theirs, params: []string{"bucketName", "data", "onDelete", "archive"}, bucket: "data", adopted: true},
		"there, template":            {there: "team-photos", params: []string{"bucketName", "team-${pvc.name}", "onDelete", "retain"}, fails: storage.Exists, words: []string{"team-photos", "template"}},
		"another's":                  {other: wish("owner"), params: []string{"bucketName", "owner", "onDelete", "retain"}, fails: storage.Exists, words: []string{"owner", "belongs to volume"}},
		"another's, folder":          {other: wish("owner"), params: []string{"bucketName", "owner", "prefix", "a", "onDelete", "retain"}, fails: storage.Exists, words: []string{"belongs to volume"}},
		"adopted twice":              {there: "data", object: theirs, other: wish("first", "bucketName", "data", "onDelete", "retain"), params: []string{"bucketName", "data", "onDelete", "retain"}, bucket: "data", adopted: true},
		"folder, bucket new":         {params: []string{"bucketName", "data", "prefix", "a/b", "onDelete", "retain"}, bucket: "data", folder: "a/b", adopted: true},
		"folder, there":              {there: "data", object: "a/b/" + theirs, params: []string{"bucketName", "data", "prefix", "a/b", "onDelete", "retain"}, bucket: "data", folder: "a/b", adopted: true},
		"folder, template":           {there: "data", object: theirs, params: []string{"bucketName", "data", "prefix", "${pvc.namespace}/${pvc.name}", "onDelete", "retain"}, bucket: "data", folder: "team/photos", adopted: true},
		"folder, template, content":  {there: "data", object: "team/photos/x", params: []string{"bucketName", "data", "prefix", "${pvc.namespace}/${pvc.name}", "onDelete", "retain"}, fails: storage.Exists, words: []string{"team/photos", "content"}},
		"folder, template, taken":    {other: wish("first", "bucketName", "data", "prefix", "team/photos", "onDelete", "retain"), params: []string{"bucketName", "data", "prefix", "team/${pvc.name}", "onDelete", "retain"}, fails: storage.Exists, words: []string{"first", "team/photos"}},
		"folder, template, below":    {other: wish("first", "bucketName", "data", "prefix", "team/photos/x", "onDelete", "retain"), params: []string{"bucketName", "data", "prefix", "team/${pvc.name}", "onDelete", "retain"}, fails: storage.Exists, words: []string{"first"}},
		"folder, bucket by template": {other: wish("first", "bucketName", "${pvc.namespace}", "prefix", "${pvc.name}", "onDelete", "retain"), params: []string{"bucketName", "${pvc.namespace}", "prefix", "${pvc.name}", "onDelete", "retain"}, bucket: "team", folder: "photos", adopted: true},
		"folder, shared":             {other: wish("first", "bucketName", "data", "prefix", "a", "onDelete", "retain"), params: []string{"bucketName", "data", "prefix", "a", "onDelete", "retain"}, bucket: "data", folder: "a", adopted: true},
		"bad fill":                   {params: []string{"bucketName", "${pvc.name}_"}, fails: storage.Invalid, words: []string{"photos_"}},
	} {
		t.Run(what, func(t *testing.T) {
			s := memory.New()
			c := newController(s)
			if test.there != "" {
				must(t, s.CreateBucket(t.Context(), storage.BucketName(test.there)))
			}
			if test.object != "" {
				must(t, s.PutObject(storage.BucketName(test.there), test.object))
			}
			if test.other != nil {
				_, err := c.CreateVolume(t.Context(), test.other)
				must(t, err)
			}
			req := wish("photos", test.params...)
			first, err := c.CreateVolume(t.Context(), req)
			if test.fails != storage.Other {
				wantKind(t, "create", err, test.fails)
				for _, word := range test.words {
					if err != nil && !strings.Contains(err.Error(), word) {
						t.Errorf("%q does not say %q", err, word)
					}
				}
				if _, err := s.GetRecord(t.Context(), "photos"); !storage.Is(err, storage.NotFound) {
					t.Errorf("a record was left: %v", err)
				}
				return
			}
			must(t, err)
			again, err := c.CreateVolume(t.Context(), req)
			if err != nil || again.String() != first.String() {
				t.Errorf("again: %v, %v", again, err)
			}
			r, err := s.GetRecord(t.Context(), "photos")
			must(t, err)
			if r.Bucket != test.bucket || r.Prefix != test.folder || r.Adopted != test.adopted {
				t.Errorf("record = %+v", r)
			}
			if !s.AllowedIn(r.Keys, test.bucket, test.folder) || test.folder != "" && s.Allowed(r.Keys, test.bucket) {
				t.Error("the keys do not open the volume, or more than it")
			}
			_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
			must(t, err)
			kept, err := s.BucketExists(t.Context(), test.bucket)
			must(t, err)
			if want := test.adopted || r.OnDelete != storage.DeleteData; kept != want {
				t.Errorf("after the deletion the bucket exists: %v, want %v", kept, want)
			}
			if test.object != "" {
				if empty, err := s.BucketEmpty(t.Context(), test.bucket); err != nil || empty {
					t.Errorf("the content that was there: empty %v, %v", empty, err)
				}
			}
			if s.AllowedIn(r.Keys, test.bucket, test.folder) {
				t.Error("the keys outlived the volume")
			}
		})
	}
}

// TestArchive: the record and the bucket stay, the keys do not; made again it is
// the same volume with new keys; it is forgotten once its bucket is gone.
func TestArchive(t *testing.T) {
	s := memory.New()
	c := newController(s)
	create := func() storage.Record {
		t.Helper()
		_, err := c.CreateVolume(t.Context(), wish("photos", "onDelete", "archive"))
		must(t, err)
		r, err := s.GetRecord(t.Context(), "photos")
		must(t, err)
		return r
	}
	remove := func() {
		t.Helper()
		_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
		must(t, err)
	}
	health := func(want string) {
		t.Helper()
		resp, err := c.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: "photos"})
		must(t, err)
		if got := said(resp.GetVolumeHealth()); got != want {
			t.Errorf("health %q, want %q", got, want)
		}
	}
	first := create()
	must(t, s.PutObject("photos", "a picture"))
	for range 2 {
		remove()
		r, err := s.GetRecord(t.Context(), "photos")
		must(t, err)
		if r.Phase != storage.Archived || r.Keys != (storage.Keys{}) || s.Allowed(first.Keys, "photos") {
			t.Errorf("archived as %+v", r)
		}
		wantKind(t, "use", checkReady(&r), storage.InUse)
	}
	list, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	must(t, err)
	if len(list.GetEntries()) != 1 || list.GetEntries()[0].GetVolume().GetVolumeContext()["phase"] != "archived" {
		t.Errorf("listed as %v", list)
	}
	_, err = c.CreateVolume(t.Context(), wish("photos"))
	wantKind(t, "made again with other parameters", err, storage.Exists)
	if again := create(); again.Phase != storage.Ready || again.Bucket != "photos" || again.Keys == first.Keys || !s.Allowed(again.Keys, "photos") {
		t.Errorf("made again: %+v", again)
	}
	if empty, err := s.BucketEmpty(t.Context(), "photos"); err != nil || empty {
		t.Errorf("the data: empty %v, %v", empty, err)
	}
	remove()
	health("")
	must(t, s.DeleteBucket(t.Context(), "photos"))
	health("DATA_LOSS BucketGone")
	remove()
	checkNothing(t, s)
}

// TestOtherParametersSayWhich: a repeated call is told what differs.
func TestOtherParametersSayWhich(t *testing.T) {
	c := newController(memory.New())
	_, err := c.CreateVolume(t.Context(), wish("photos", "uid", "1", "onDelete", "retain"))
	must(t, err)
	_, err = c.CreateVolume(t.Context(), wish("photos", "uid", "2", "gid", "3"))
	wantKind(t, "create", err, storage.Exists)
	for _, word := range []string{"uid", `"1"`, `"2"`, "gid", "onDelete"} {
		if err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	other := wish("claim", "bucketName", "${pvc.namespace}-1")
	_, err = c.CreateVolume(t.Context(), other)
	must(t, err)
	other.Parameters["csi.storage.k8s.io/pvc/namespace"] = "another"
	_, err = c.CreateVolume(t.Context(), other)
	wantKind(t, "the same for another namespace", err, storage.Exists)
}

// TestCrashNeverMakesAnOwner: whatever dies in between, an adopted bucket and one
// with folders outlive their volumes, with what is in them.
func TestCrashNeverMakesAnOwner(t *testing.T) {
	for what, params := range map[string][]string{
		"adopted": {"bucketName", "theirs", "onDelete", "retain"},
		"folder":  {"bucketName", "theirs", "prefix", "a", "onDelete", "retain"},
	} {
		t.Run(what, func(t *testing.T) {
			eachCrash(t, func(t *testing.T, s *memory.Store) {
				must(t, s.CreateBucket(t.Context(), "theirs"))
				must(t, s.PutObject("theirs", "a/their picture"))
			}, func(c *Controller) error {
				_, err := c.CreateVolume(t.Context(), wish("photos", params...))
				if err != nil && !storage.Is(err, storage.Busy) { // Busy: its deletion had begun
					return err
				}
				_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
				return err
			}, func(t *testing.T, s *memory.Store) {
				if empty, err := s.BucketEmpty(t.Context(), "theirs"); err != nil || empty {
					t.Errorf("their bucket: empty %v, %v", empty, err)
				}
				if u := s.UserNames(); len(u) > 0 {
					t.Errorf("users left: %v", u)
				}
			})
		})
	}
}

// TestCrashWithinAnEmptyAdoptedBucket: it looks just like one that we made.
func TestCrashWithinAnEmptyAdoptedBucket(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= 4; n++ {
			s := memory.New()
			must(t, s.CreateBucket(t.Context(), "theirs"))
			_, _ = (&crasher{Store: s, left: n, after: after}).controller().CreateVolume(t.Context(), wish("photos", "bucketName", "theirs", "onDelete", "retain"))
			_, err := (&crasher{Store: s, left: 1 << 30}).controller().DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
			must(t, err)
			if exists, err := s.BucketExists(t.Context(), "theirs"); err != nil || !exists {
				t.Errorf("step %d after=%v: their bucket exists: %v, %v", n, after, exists, err)
			}
		}
	}
}

// TestTwoVolumesAskForOneNewBucket: the one that came second does not get it, and
// neither its repetition nor its deletion takes it from the first.
func TestTwoVolumesAskForOneNewBucket(t *testing.T) {
	for _, repeat := range []bool{true, false} {
		s := memory.New()
		want := []string{"bucketName", "data"}
		// The second one has its record, and dies before it makes the bucket.
		_, err := (&crasher{Store: s, left: 2}).controller().CreateVolume(t.Context(), wish("second", want...))
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		// The first one was admitted before that record was written.
		r, err := s.GetRecord(t.Context(), "second")
		must(t, err)
		must(t, s.DeleteRecord(t.Context(), "second"))
		c := (&crasher{Store: s, left: 1 << 30}).controller()
		_, err = c.CreateVolume(t.Context(), wish("first", want...))
		must(t, err)
		_, err = s.CreateRecord(t.Context(), r)
		must(t, err)
		if repeat {
			_, err = c.CreateVolume(t.Context(), wish("second", want...))
			wantKind(t, "the second", err, storage.Exists)
		}
		_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "second"})
		must(t, err)
		if exists, err := s.BucketExists(t.Context(), "data"); err != nil || !exists {
			t.Errorf("the first one's bucket exists: %v, %v", exists, err)
		}
	}
}

// counted is what lies in buckets.
type counted struct {
	bytes map[string]int64
	err   error
}

func (c *counted) Exceeds(_ context.Context, b storage.BucketName, folder storage.Path, most int64) (bool, error) {
	if c.err != nil {
		return false, c.err
	}
	return c.bytes[string(b)+"/"+string(folder)] > most, nil
}

// TestSizeBelowWhatIsThere: a volume is not made smaller than what lies in the bucket or
// the folder that it adopts, and nothing of it is left.
func TestSizeBelowWhatIsThere(t *testing.T) {
	for what, given := range map[string]map[string]string{
		"a bucket": {"bucketName": "there", "onDelete": "retain"},
		"a folder": {"bucketName": "there", "prefix": "a", "onDelete": "retain"},
	} {
		s := memory.New()
		must(t, s.CreateBucket(t.Context(), "there"))
		lies := &counted{bytes: map[string]int64{"there/": 2 << 30, "there/a": 2 << 30}}
		c := NewController(ControllerDeps{Records: s, Buckets: s, Access: s, Content: lies})
		req := ask("photos")
		req.Parameters = given
		create := func(size int64) error {
			req.CapacityRange = &csi.CapacityRange{RequiredBytes: size}
			_, err := c.CreateVolume(t.Context(), req)
			return err
		}
		wantKind(t, what, create(2<<30-1), storage.OutOfRange)
		lies.err = storage.Errorf(storage.Unavailable, "no filer")
		wantKind(t, what+", not counted", create(2<<30), storage.Unavailable)
		if _, err := s.GetRecord(t.Context(), "photos"); !storage.Is(err, storage.NotFound) {
			t.Errorf("%s: a record is left: %v", what, err)
		}
		lies.err = nil
		must(t, create(2<<30))
	}
}
