package driver

import (
	"maps"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestOwnContent: of every way in which a volume gets its bucket or folder.
func TestOwnContent(t *testing.T) {
	given := map[string]string{"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team", "csi.storage.k8s.io/pv/name": "pvc-1"}
	for _, c := range []struct {
		what       string
		parameters map[string]string
		there      storage.BucketName // made before
		own        bool
	}{
		{"a bucket of its own", nil, "", true},
		{"a bucket that it named and made", map[string]string{"bucketName": "shared"}, "", true},
		{"a bucket that was there", map[string]string{"bucketName": "shared", "onDelete": "retain"}, "shared", false},
		{"a bucket by a template", map[string]string{"bucketName": "of-${pvc.name}"}, "", true},
		{"a folder that others may have", map[string]string{"bucketName": "shared", "prefix": "team/data", "onDelete": "retain"}, "", false},
		{"a folder by a template", map[string]string{"bucketName": "shared", "prefix": "${pvc.namespace}/${pvc.name}", "onDelete": "retain"}, "", true},
	} {
		s := memory.New()
		if c.there != "" {
			must(t, s.CreateBucket(t.Context(), c.there))
		}
		req := ask("pvc-1")
		req.Parameters = map[string]string{}
		for _, of := range []map[string]string{given, c.parameters} {
			maps.Copy(req.Parameters, of)
		}
		_, err := newController(s).CreateVolume(t.Context(), req)
		must(t, err)
		r, err := s.GetRecord(t.Context(), "pvc-1")
		must(t, err)
		if got := OwnContent(&r); got != c.own {
			t.Errorf("%s: own %v, want %v", c.what, got, c.own)
		}
	}
}
