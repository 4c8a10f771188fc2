package csisanity

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A file that is overwritten 4 KiB at a time, with an fsync for each, is merged
// while it is read: every byte is right all the time, in the mount and over S3,
// and the file has few chunks in the end, as the N of its ETag tells.
func TestManySmallCommits(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	path := filepath.Join(dir, "file")
	const size, piece, commits = 8 << 20, 4096, 600
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range commits {
		at := rng.IntN(size/piece) * piece
		for k := at; k < at+piece; k++ {
			want[k] = byte(i)
		}
		if _, err := f.WriteAt(want[at:at+piece], int64(at)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if i%20 == 0 {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: after %d commits the file differs, or fails: %v", seed, i+1, err)
			}
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := v.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String("file")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Body.Close() }()
	if got, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(got, want) {
		t.Errorf("seed %d: over S3 the file differs, or fails: %v", seed, err)
	}
	_, n, _ := strings.Cut(strings.Trim(aws.ToString(out.ETag), `"`), "-")
	if chunks, err := strconv.Atoi(n); err != nil || chunks > commits/3 {
		t.Errorf("ETag %s: the file has not been merged", aws.ToString(out.ETag))
	} else {
		t.Logf("%d chunks after %d commits", chunks, commits)
	}
	v.remount(t, dir)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("seed %d: after a remount the file differs, or fails: %v", seed, err)
	}
}
