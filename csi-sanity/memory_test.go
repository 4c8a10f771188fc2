package csisanity

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What serves the mounts leaves the node's memory to the applications: little when
// idle, and bounded while much is written and read.
func TestMemory(t *testing.T) {
	const idle, busy, size = 40, 200, 512 << 20
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	if err := os.WriteFile(filepath.Join(dir, "small"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	worker := children(in.mustStatus(t).component(t, "mounter").PID)
	if len(worker) != 1 {
		t.Fatalf("the mounter has %d workers", len(worker))
	}
	now := residentMiB(t, worker[0], "VmRSS")
	t.Logf("idle: %d MiB", now)
	if now > idle {
		t.Errorf("an idle worker takes %d MiB, want %d or less", now, idle)
	}

	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(pattern{}, size), make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	written := residentMiB(t, worker[0], "VmHWM")
	v.remount(t, dir)
	if f, err = os.Open(f.Name()); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{f}); err != nil || n != size {
		t.Errorf("read %d bytes: %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	read := residentMiB(t, worker[0], "VmHWM")
	t.Logf("at most %d MiB while %d MiB were written, %d when they were read", written, size>>20, read)
	if read > busy {
		t.Errorf("the worker took %d MiB, want %d or less", read, busy)
	}
}

// residentMiB reads a line of a process's status.
func residentMiB(t *testing.T, pid int, key string) (mib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			_, _ = fmt.Sscan(rest, &mib)
			return mib >> 10
		}
	}
	t.Fatalf("process %d tells no %s", pid, key)
	return 0
}

// pattern is bytes that no server compresses to nothing.
type pattern struct{}

func (pattern) Read(b []byte) (int, error) {
	x := uint32(len(b)) | 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return len(b), nil
}
