package fuse

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestErrnoIsTotal(t *testing.T) {
	for _, k := range storage.Kinds() {
		if errnos[k] == 0 {
			t.Errorf("kind %q has no errno", k)
		}
	}
	if len(errnos) != len(storage.Kinds()) {
		t.Errorf("%d errnos for %d kinds", len(errnos), len(storage.Kinds()))
	}
}
