package seaweed

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

func TestFilerErrorsAreTotal(t *testing.T) {
	for code, name := range filerpb.FilerError_name {
		if _, ok := filerKinds[filerpb.FilerError(code)]; !ok {
			t.Errorf("%s has no kind", name)
		}
	}
}

// The texts as the filer words them, each within a longer one.
func TestTexts(t *testing.T) {
	for text, want := range map[string]storage.Kind{
		"filer: no entry is found in filer store":                                              storage.NotFound,
		"/buckets/b/f move error: fail to move x => y: z: existing entry is a directory":       storage.IsDirectory,
		"/buckets/b/d move error: fail to move x => y: z: existing entry is a file":            storage.NotDirectory,
		"/buckets/b/d move error: fail to move x => y: fail to delete non-empty folder: /full": storage.NotEmpty,
		"mv: can not move directory to a subdirectory of itself":                               storage.Invalid,
		"entry name too long": storage.TooLong,
		"assign volume: No writable volumes and no free volumes left": storage.Full,
		"something that nobody has seen before":                       storage.Other,
	} {
		if got := textKind(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
