package journal

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// A disk in memory: a folder for each try would be most of the time.
func diskWith(t *testing.T, b []byte) *memDisk {
	d := newMemDisk(1)
	f, err := d.open(name, false)
	if err == nil && len(b) > 0 {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (m *memDisk) content(name string) []byte {
	b := make([]byte, m.files[name].length)
	_, _ = m.files[name].ReadAt(b, 0)
	return b
}

// written is a journal with records that are all different, of all sizes.
func written(t testing.TB) (file []byte, records [][]byte) {
	form, b := newForm(1)
	out := &batch{tape: &tape{form: form, size: headerSize}}
	for i := range 12 {
		r := fmt.Appendf(nil, "%d %0*d", i, []int{1, 30, 700, 5000}[i%4], i)
		records = append(records, r)
		if err := out.add(r); err != nil {
			t.Fatal(err)
		}
	}
	return append(b, out.buf...), records
}

// FuzzDamage does to a journal what edits say, in steps of four bytes, and looks
// at what is replayed: records as they were written, in their order, no other
// ones, and a word where one in the middle is missing.
func FuzzDamage(f *testing.F) {
	whole, records := written(f)
	f.Fuzz(func(t *testing.T, edits []byte) {
		b := bytes.Clone(whole)
		place := func(x, y byte) int { return headerSize + (int(x)<<8|int(y))%max(1, len(b)-headerSize) }
		for ; len(edits) >= 4 && len(b) > headerSize; edits = edits[4:] {
			at, v := place(edits[1], edits[2]), edits[3]
			n := min(int(v), len(b)-at)
			switch edits[0] % 6 {
			case 0: // rot
				b[at] ^= v
			case 1: // torn
				b = b[:at]
			case 2: // never came to the disk
				clear(b[at:min(at+16*n, len(b))])
			case 3: // what stands elsewhere stands here too
				copy(b[at:], whole[headerSize+int(v)*len(whole)/300:])
			case 4: // something is gone in the middle
				b = append(b[:at], b[at+n:]...)
			case 5: // something is too much
				b = append(b[:at:at], append(bytes.Repeat([]byte{v}, int(v)), b[at:]...)...)
			}
		}
		d := diskWith(t, b)
		look := func() (l *Log, got [][]byte, err error) {
			l, err = open(d, func(r []byte) error {
				got = append(got, bytes.Clone(r))
				return nil
			})
			if l == nil {
				t.Fatalf("refused: %v", err)
			}
			return l, got, err
		}
		l, got, err := look()
		next := 0
		for i, r := range got {
			for next < len(records) && !bytes.Equal(records[next], r) {
				next++
			}
			if next == len(records) {
				t.Fatalf("record %d, %.30q, was never written, or is out of order", i, r)
			}
			if next != i && !storage.Is(err, storage.Corrupt) {
				t.Fatalf("record %d is missing, and no word of it: %v", i, err)
			}
			next++
		}
		if err := l.Append([]byte("after")); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		l, again, _ := look()
		if len(again) != len(got)+1 || string(again[len(got)]) != "after" {
			t.Fatalf("%d records, then %d with one more", len(got), len(again))
		}
		_ = l.Close()
	})
}

// FuzzFile opens anything at all, of each version.
func FuzzFile(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		d := diskWith(t, b)
		count := 0
		l, err := open(d, func(r []byte) error {
			if count++; len(r) == 0 || len(r) > len(b) {
				t.Fatalf("a record of %d bytes in a file of %d", len(r), len(b))
			}
			return nil
		})
		if l == nil {
			if !storage.Is(err, storage.Invalid) || !bytes.Equal(d.content(name), b) {
				t.Fatalf("refused with %v; changed: %v", err, !bytes.Equal(d.content(name), b))
			}
			return
		}
		if err := l.Append([]byte("after")); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		last := ""
		l, _ = open(d, func(r []byte) error {
			count--
			last = string(r)
			return nil
		})
		if l == nil || count != -1 || last != "after" {
			t.Fatalf("one record more, and it is %q, %d", last, count)
		}
		_ = l.Close()
	})
}
