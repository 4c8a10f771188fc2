package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// A session lives over an upgrade: a journal of version 1, as the program before
// wrote it, is replayed and goes on as it is until the next compaction.
func TestVersion1(t *testing.T) {
	old, err := os.ReadFile("testdata/version1")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("key%d=%0*d", i%7, 1+i*i, i))
	}
	for _, torn := range []int{0, 1, 100} { // bytes of the last record
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, old[:len(old)-torn], 0o600); err != nil {
			t.Fatal(err)
		}
		want := want[:20-min(torn, 1)]
		check := func() *Log {
			t.Helper()
			var got []string
			l, err := Open(dir, func(b []byte) error {
				got = append(got, string(b))
				return nil
			})
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("torn by %d: %q, %v", torn, got, err)
			}
			return l
		}
		add := func(l *Log, s string) {
			t.Helper()
			if err := l.Append([]byte(s)); err != nil {
				t.Fatal(err)
			}
			want = append(want, s)
		}
		l := check()
		add(l, "new")
		_ = l.Close()
		if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, old[:len(old)-700]) {
			t.Errorf("what stood there has changed, or %v", err)
		}
		l = check()
		add(l, "newer")
		if err := l.Compact(func(emit func([]byte) error) error {
			add(l, "during")
			want = []string{"live", "during"}
			return emit([]byte("live"))
		}); err != nil {
			t.Fatal(err)
		}
		add(l, "newest")
		_ = l.Close()
		if b, _ := os.ReadFile(path); b[4] != version {
			t.Errorf("after a compaction it is of version %d", b[4])
		}
		_ = check().Close()
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	for _, text := range []string{"HFJ\x00\x03\x00\x00\x00rest", "HFJ\x00\x00\x00\x00\x00rest", "somebody's own file"} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(dir, nil); l != nil || !storage.Is(err, storage.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
		if b, _ := os.ReadFile(path); string(b) != text {
			t.Errorf("the file was changed: %q", b)
		}
	}
}
