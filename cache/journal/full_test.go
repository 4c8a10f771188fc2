package journal

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// On a full disk new writes are refused, and what makes it emptier is not, over a
// restart too; then all is as before.
func TestFullDisk(t *testing.T) {
	d := newMemDisk(1)
	d.capacity = 16 << 20 / pageSize
	m := newModel()
	l := m.reopen(t, d, false, false)
	for _, size := range []int{4000, 100} {
		for {
			if err := m.append(l, size, false); storage.Is(err, storage.Full) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	used := l.Size()
	if used < 14<<20 {
		t.Errorf("only %d bytes of the disk are used", used)
	}
	// Somebody else takes all that is left.
	d.capacity = d.usedLocked()
	reserved := func(until int64) {
		t.Helper()
		for l.Size() < until {
			if err := m.append(l, 100, true); err != nil {
				t.Fatalf("after %d bytes of the reserve: %v", l.Size()-used, err)
			}
			if err := m.append(l, 100, false); !storage.Is(err, storage.Full) {
				t.Fatalf("a write into the reserve: %v", err)
			}
		}
	}
	reserved(used + reserve/3)
	// A worker that is killed in the middle of a write takes no reserve with it.
	half := make([]byte, headSize+100)
	l.mu.form.seal(&l.mu.sum, half, l.Size(), 0)
	if _, err := l.mu.file.WriteAt(half[:50], l.Size()); err != nil {
		t.Fatal(err)
	}
	d = d.reboot()
	l = m.reopen(t, d, false, false)
	reserved(used + reserve*2/3)
	_ = l.Close()
	l = m.reopen(t, d, false, false)
	reserved(used + reserve - 200)
	for m.append(l, 100, true) == nil {
		if l.Size() > used+reserve+pageSize {
			t.Fatal("the disk is not full")
		}
	}
	// A compaction needs room for what is live, and no more: the old file's space
	// gives the reserve.
	if err := l.Compact(m.live); !storage.Is(err, storage.Full) {
		t.Fatalf("a compaction without any room: %v", err)
	}
	d.capacity += 10
	if err := l.Compact(m.live); err != nil {
		t.Fatal(err)
	}
	d.capacity = d.usedLocked()
	used = l.Size()
	for l.Size() < used+reserve-10_000 {
		if err := m.append(l, 1000, true); err != nil {
			t.Fatalf("after %d bytes of the new reserve: %v", l.Size()-used, err)
		}
	}
	d.capacity = 0
	if err := m.append(l, 1000, false); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_ = m.reopen(t, d, false, false)
}

// The reserve lies in the file itself, on the real disk too, and a restart finds
// it there.
func TestReserveIsOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		l, err := Open(dir, func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			if err := l.Append(make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
		}
		if l.mu.endless {
			t.Skip("this file system cannot allocate in advance")
		}
		size := l.Size()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		if has := st.Blocks * 512; has < size+reserve || st.Size != size {
			t.Errorf("%d bytes on the disk for %d and the reserve; its size is %d", has, size, st.Size)
		}
	}
}

// A flood of records that may use half of the reserve leaves the other half.
func TestHalfTheReserve(t *testing.T) {
	d := newMemDisk(1)
	l, err := open(d, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	d.capacity = d.usedLocked()
	record := make([]byte, 1000)
	until := func(add func([]byte) error) (taken int64) {
		t.Helper()
		from := l.Size()
		for {
			if err := add(record); storage.Is(err, storage.Full) {
				return l.Size() - from
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	until(l.Append)
	half := until(l.AppendHalf)
	rest := until(l.AppendReserved)
	for _, taken := range []int64{half, rest} {
		if taken < reserve/2-2*pageSize || taken > reserve/2+2*pageSize {
			t.Errorf("%d bytes for the flood and %d for the others, of %d", half, rest, reserve)
		}
	}
}
