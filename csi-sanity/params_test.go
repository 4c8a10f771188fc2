package csisanity

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSharedBucket: two volumes are folders of one bucket; each sees its own, its
// keys open its own, and what is deleted stays in the bucket. A third volume is the
// whole bucket.
func TestSharedBucket(t *testing.T) {
	in := shared(t)
	name := volumeName(t)
	bucket := name + "-bucket"
	folder := func(name, prefix string, more ...string) *volume {
		return in.create(t, name, append([]string{"--param", "bucketName=" + bucket, "--param", "prefix=" + prefix, "--param", "onDelete=retain"}, more...)...)
	}
	one := folder(name+"-1", "team/one", "--param", "uid=1234", "--param", "gid=5678", "--param", "fileMode=0604", "--param", "dirMode=0705")
	two := folder(name+"-2", "team/two")
	if one.Bucket != bucket || one.Prefix != "team/one/" {
		t.Errorf("credentials: %+v", one)
	}
	if out, err := in.run(t.Context(), "volume", "create", name+"-3", "--size", "1Gi", "--param", "bucketName="+bucket, "--param", "prefix=team/three"); err == nil || !strings.Contains(err.Error(), "onDelete=retain") {
		t.Errorf("a folder that is to be deleted: %+v, %v", out, err)
	}

	dir1, dir2 := one.mount(t), two.mount(t)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir1, "file"), "of one")
	write(filepath.Join(dir2, "file"), "of two")
	if err := one.holds(t.Context(), "team/one/file", "of one"); err != nil {
		t.Error(err)
	}
	one.put(t, "team/one/made/object", "over S3")
	if err := one.holds(t.Context(), "team/two/file", "of two"); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the keys of one on two: %v", err)
	}
	// It has the owner and the modes that were asked for.
	var info os.FileInfo
	eventually(t, 30*time.Second, func() (err error) {
		info, err = os.Stat(filepath.Join(dir1, "made", "object"))
		return err
	})
	if st := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o604 || st.Uid != 1234 || st.Gid != 5678 {
		t.Errorf("made over S3: mode %v, uid %d, gid %d", info.Mode(), st.Uid, st.Gid)
	}
	if made, err := os.Stat(filepath.Join(dir1, "made")); err != nil || made.Mode().Perm() != 0o705 {
		t.Errorf("the folder made over S3: %v, %v", made, err)
	}

	in.drop(t, one.name)
	whole := in.create(t, name+"-all", "--param", "bucket="+bucket, "--param", "onDelete=archive")
	dir := whole.mount(t)
	for path, want := range map[string]string{"team/one/file": "of one", "team/two/file": "of two"} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s in the whole bucket: %q, %v", path, got, err)
		}
	}
	in.drop(t, whole.name)
	if d := unmarshal[described](t, in.must(t, "volume", "describe", whole.name, "-o", "json")); d.Phase != "archived" {
		t.Errorf("described as %+v", d)
	}
	if got, err := os.ReadFile(filepath.Join(dir2, "file")); err != nil || string(got) != "of two" {
		t.Errorf("two after the deletion of the others: %q, %v", got, err)
	}
}

// TestParameters: the command prints what the table says.
func TestParameters(t *testing.T) {
	in := shared(t)
	out := in.must(t, "parameters")
	for _, word := range []string{"bucketName", "prefix", "onDelete", "dirMode"} {
		if !strings.Contains(out, word) {
			t.Errorf("%q does not say %s", out, word)
		}
	}
	if help := in.must(t, "volume", "create", "--help"); !strings.Contains(help, "--param") || !strings.Contains(help, "bucketName") {
		t.Errorf("the help: %q", help)
	}
}
