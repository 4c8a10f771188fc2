package csisanity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// TestDamagedJournal: everything dies with acknowledged bytes in a stage's file, and
// the records that tell of them are damaged. The bytes are kept aside and the volume's
// health says so; the volume is served, and its end removes nothing of them.
func TestDamagedJournal(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	if err := os.WriteFile(filepath.Join(dir, "committed"), []byte("committed"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	folder := filepath.Join(in.dir, "mounter", "volumes", v.Bucket)
	journal := filepath.Join(folder, "journal")
	before, err := os.Stat(journal)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("acknowledged\n"), 50_000)
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	stages, err := filepath.Glob(filepath.Join(folder, "stage-*"))
	if err != nil || len(stages) != 1 {
		t.Fatalf("the stage's file: %q, %v", stages, err)
	}
	in.killAll()
	_ = f.Close() // it fails, as it should
	eventually(t, 20*time.Second, in.noProcess)
	damaged, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	clear(damaged[before.Size():]) // what was written since
	if err := os.WriteFile(journal, damaged, 0o600); err != nil {
		t.Fatal(err)
	}

	in.up(t)
	if err := sameContent(filepath.Join(dir, "committed"), "committed"); err != nil {
		t.Error(err)
	}
	resp, err := in.csi(t).node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: v.Bucket, VolumePublishPath: dir})
	if err != nil || !slices.ContainsFunc(resp.GetVolumeHealth().GetHealthStatuses(), func(s *csi.VolumeHealth_VolumeHealthEntry) bool { return s.GetReason() == "Leftovers" }) {
		t.Errorf("health: %v, %v", resp, err)
	}
	kept := func(when string) {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(folder, "leftovers", "*"))
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, path := range all {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			found = found || bytes.Equal(b, content)
		}
		if !found {
			t.Errorf("%s: what was acknowledged is not in %s", when, strings.Join(all, ", "))
		}
	}
	kept("mounted")
	in.must(t, "volume", "unmount", dir)
	kept("unmounted")
	in.must(t, "volume", "mount", v.name, dir)
	if info, err := os.Stat(filepath.Join(dir, "file")); err != nil || info.Size() != 0 {
		t.Error(errors.Join(err, fmt.Errorf("the file: %v", info)))
	}
	in.must(t, "volume", "unmount", dir)
	kept("mounted once more")
}
