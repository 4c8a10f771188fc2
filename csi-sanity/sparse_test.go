package csisanity

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"
)

// A file of 100 GiB with three pieces in it: it takes little on the node and in
// the store, its holes are found, and a part of it can be made a hole again. S3
// reads zeros where a hole is.
func TestSparseFiles(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	const size, middle = 100 << 30, 50 << 30
	piece := bytes.Repeat([]byte("holdfast"), 128<<10)
	path := filepath.Join(dir, "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	places := []int64{0, middle, size - int64(len(piece))}
	for _, at := range places {
		if _, err := f.WriteAt(piece, at); err != nil {
			t.Fatal(err)
		}
	}
	look := func(when string, holes int) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Size != size || st.Blocks*512 > 4<<20 || st.Blocks == 0 {
			t.Errorf("%s: %d bytes, %d blocks", when, st.Size, st.Blocks)
		}
		at, found := int64(0), []int64{}
		for {
			data, err := f.Seek(at, unix.SEEK_DATA)
			if errors.Is(err, syscall.ENXIO) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if at, err = f.Seek(data, unix.SEEK_HOLE); err != nil {
				t.Fatal(err)
			}
			found = append(found, data)
		}
		if len(found) != holes {
			t.Errorf("%s: data begins at %v, want %d places", when, found, holes)
		}
	}
	look("written", 3)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	look("fsynced", 3)
	got := make([]byte, len(piece)+4096)
	if _, err := f.ReadAt(got, middle-4096); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[4096:], piece) || len(bytes.Trim(got[:4096], "\x00")) != 0 {
		t.Error("the middle differs")
	}
	// All of the middle but its last 100 bytes.
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, middle-(1<<30), 1<<30+int64(len(piece))-100); err != nil {
		t.Fatal(err)
	}
	look("punched", 3)
	if _, err := f.ReadAt(got, middle-4096); err != nil {
		t.Fatal(err)
	}
	if at := len(got) - 100; !bytes.Equal(got[at:], piece[len(piece)-100:]) || len(bytes.Trim(got[:at], "\x00")) != 0 {
		t.Error("the punched middle differs")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	small := filepath.Join(dir, "small")
	s, err := os.Create(small)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 12<<20)
	for _, at := range []int{1 << 20, 7 << 20} {
		copy(want[at:], piece)
		if _, err := s.WriteAt(piece, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Fallocate(int(s.Fd()), 0, 0, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(int(s.Fd()), unix.FALLOC_FL_ZERO_RANGE, 7<<20+1000, 300_000); err != nil {
		t.Fatal(err)
	}
	clear(want[7<<20+1000 : 7<<20+301_000])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := v.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String("small")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Body.Close() }()
	if body, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(body, want) {
		t.Errorf("S3 reads %d bytes that differ, or fails: %v", len(body), err)
	}
	v.remount(t, dir)
	if again, err := os.ReadFile(small); err != nil || !bytes.Equal(again, want) {
		t.Errorf("after a remount %d bytes differ, or fails: %v", len(again), err)
	}
}
