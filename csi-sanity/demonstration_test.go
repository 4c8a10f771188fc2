package csisanity

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// nobody is the user that is used where a test needs one without rights.
const nobody = 65534

// The whole promise at once: a source tree goes into a mounted volume, is the
// same after a remount, and every byte of it is there over S3; what is written
// over S3 is there in the mount.
func TestDemonstration(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	source := goSource(t)
	to := filepath.Join(dir, "src")
	begin := time.Now()
	command(t, "cp", "-r", source, to)
	t.Logf("copied in %s", time.Since(begin).Round(time.Millisecond))
	v.remount(t, dir)
	begin = time.Now()
	command(t, "diff", "-r", source, to)
	t.Logf("compared after a remount in %s", time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	n := compareOverS3(t, v, source, "src/")
	t.Logf("compared %d objects over S3 in %s", n, time.Since(begin).Round(time.Millisecond))
	appearInMount(t, v, dir, os.ReadFile)
}

// The same by a process without any right: it copies, reads what S3 wrote, and
// its files are objects.
func TestDemonstrationUnprivileged(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	own := filepath.Join(dir, "own")
	if out, err := asRoot("install", "-d", "-o", fmt.Sprint(nobody), "-g", fmt.Sprint(nobody), own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Readable for everybody, wherever Go lies.
	source := filepath.Join(in.work, "source")
	command(t, "cp", "-r", filepath.Join(goSource(t), "net"), source)
	command(t, "chmod", "-R", "a+rX", source)
	to := filepath.Join(own, "net")
	mustRun(t, as(nobody, "cp", "-r", source, to))
	v.remount(t, dir)
	mustRun(t, as(nobody, "diff", "-r", source, to))
	compareOverS3(t, v, source, "own/net/")
	info, err := os.Stat(filepath.Join(to, "http"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != nobody {
		t.Errorf("what uid %d made belongs to uid %d after a remount", nobody, uid)
	}
	appearInMount(t, v, dir, func(path string) ([]byte, error) { return as(nobody, "cat", path).Output() })
	if out, err := as(nobody, "sh", "-c", `echo changed > "$0"`, filepath.Join(dir, "from-s3")).CombinedOutput(); err == nil {
		t.Errorf("a user without rights changed an object of S3's: %s", out)
	}
}

// goSource is the source tree of the Go distribution, about 12,000 entries.
func goSource(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// appearInMount writes objects over S3 and waits for them in the mount, new and
// overwritten and deleted.
func appearInMount(t *testing.T, v *volume, dir string, read func(string) ([]byte, error)) {
	t.Helper()
	const moment = 5 * time.Second
	see := func(key, want string) {
		t.Helper()
		eventually(t, moment, func() error {
			got, err := read(filepath.Join(dir, key))
			if err == nil && string(got) != want {
				err = fmt.Errorf("%s holds %q, want %q", key, got, want)
			}
			return err
		})
	}
	for _, key := range []string{"from-s3", "made/by/s3/deep"} {
		v.put(t, key, "written over S3")
		see(key, "written over S3")
	}
	v.put(t, "from-s3", "and again, longer than before")
	see("from-s3", "and again, longer than before")
	for path, want := range map[string]fs.FileMode{"from-s3": 0o644, "made": fs.ModeDir | 0o755} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode() != want {
			t.Errorf("%s, made over S3, has mode %v (%v), want %v", path, info.Mode(), err, want)
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() {
			t.Errorf("%s, made over S3, belongs to %d:%d, want whoever ran up", path, st.Uid, st.Gid)
		}
	}
	if _, err := v.client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String("made/by/s3/deep")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, moment, func() error {
		_, err := os.Lstat(filepath.Join(dir, "made/by/s3/deep"))
		if err == nil {
			return errors.New("an object deleted over S3 is still there")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// compareOverS3 compares every file below source with its object, and returns
// how many there are: content, size, ETag.
func compareOverS3(t *testing.T, v *volume, source, prefix string) int {
	t.Helper()
	client := v.client()
	objects := listAll(t, v, prefix)
	var work sync.WaitGroup
	slots := make(chan struct{}, 8)
	files := 0
	err := filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		key := prefix + filepath.ToSlash(rel)
		listed, ok := objects[key]
		delete(objects, key)
		if !ok {
			t.Errorf("%s is not listed over S3", key)
			return nil
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			if err := compareObject(t.Context(), client, v.Bucket, key, path, listed); err != nil {
				t.Errorf("%s: %v", key, err)
			}
		})
		return nil
	})
	work.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for key := range objects {
		if !strings.HasSuffix(key, "/") {
			t.Errorf("%s is listed over S3 and no file", key)
		}
	}
	return files
}

// listed is what a listing tells of an object.
type listed struct {
	size int64
	etag string
}

func listAll(t *testing.T, v *volume, prefix string) map[string]listed {
	t.Helper()
	all := map[string]listed{}
	pages := s3.NewListObjectsV2Paginator(v.client(), &s3.ListObjectsV2Input{Bucket: aws.String(v.Bucket), Prefix: aws.String(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			all[aws.ToString(o.Key)] = listed{aws.ToInt64(o.Size), aws.ToString(o.ETag)}
		}
	}
	return all
}

func compareObject(ctx context.Context, client *s3.Client, bucket, key, path string, l listed) error {
	want, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	object, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return err
	}
	defer func() { _ = object.Body.Close() }()
	got, err := io.ReadAll(object.Body)
	if err != nil {
		return err
	}
	sum := md5.Sum(want)
	etag := `"` + hex.EncodeToString(sum[:]) + `"`
	switch {
	case !bytes.Equal(got, want):
		return fmt.Errorf("its %d bytes are not those of the file, which has %d", len(got), len(want))
	case aws.ToInt64(object.ContentLength) != int64(len(want)) || l.size != int64(len(want)):
		return fmt.Errorf("size %d, listed as %d, want %d", aws.ToInt64(object.ContentLength), l.size, len(want))
	case aws.ToString(object.ETag) != etag || l.etag != etag:
		return fmt.Errorf("ETag %s, listed as %s, want %s", aws.ToString(object.ETag), l.etag, etag)
	}
	return nil
}
