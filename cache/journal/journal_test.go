package journal_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
)

func open(t *testing.T, dir string) (*journal.Log, []string, error) {
	t.Helper()
	var got []string
	l, err := journal.Open(dir, func(r []byte) error {
		got = append(got, string(r))
		return nil
	})
	if l != nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	return l, got, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func file(dir string) string { return filepath.Join(dir, "journal") }

// TestTornTail cuts the file at every byte: what was appended whole is replayed,
// and what is appended afterwards is found.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	var ends []int64
	for i := range 5 {
		must(t, l.Append(fmt.Appendf(nil, "record %d", i)))
		ends = append(ends, l.Size())
	}
	whole, err := os.ReadFile(file(dir))
	must(t, err)
	for cut := range len(whole) {
		dir := t.TempDir()
		must(t, os.WriteFile(file(dir), whole[:cut], 0o600))
		l, got, err := open(t, dir)
		must(t, err)
		want := 0
		for _, e := range ends {
			if e <= int64(cut) {
				want++
			}
		}
		if len(got) != want {
			t.Fatalf("cut at %d: %d records, want %d", cut, len(got), want)
		}
		must(t, l.Append([]byte("after")))
		must(t, l.Close())
		if _, got, err = open(t, dir); err != nil || len(got) != want+1 || got[want] != "after" {
			t.Fatalf("cut at %d, after an append: %q, %v", cut, got, err)
		}
	}
}

// TestDamage flips every byte in turn: never a wrong record, the others are
// replayed, and damage is said, also of the last one: it was acknowledged.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	var want []string
	for i := range 4 {
		want = append(want, fmt.Sprintf("record %d", i))
		must(t, l.Append([]byte(want[i])))
	}
	whole, err := os.ReadFile(file(dir))
	must(t, err)
	for at := 24; at < len(whole); at++ { // behind the header
		dir := t.TempDir()
		bad := bytes.Clone(whole)
		bad[at] ^= 0x40
		must(t, os.WriteFile(file(dir), bad, 0o600))
		_, got, err := open(t, dir)
		if !storage.Is(err, storage.Corrupt) {
			t.Errorf("byte %d: no word of it: %v", at, err)
		}
		if len(got) != 3 {
			t.Errorf("byte %d: %q", at, got)
		}
		for _, g := range got {
			if !slices.Contains(want, g) {
				t.Errorf("byte %d: a wrong record %q", at, g)
			}
		}
	}
}

// TestCompactWhileAppending: the state after the replay is the one before, with
// appends from everywhere while the journal is compacted again and again.
func TestCompactWhileAppending(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	var mu sync.Mutex
	state := map[string]string{}
	var work sync.WaitGroup
	for w := range 4 {
		work.Go(func() {
			for i := range 500 {
				mu.Lock()
				key, value := fmt.Sprintf("%d-%d", w, rand.IntN(10)), fmt.Sprint(i)
				state[key] = value
				if err := l.Append([]byte(key + "=" + value)); err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	for range 20 {
		must(t, l.Compact(func(emit func([]byte) error) error {
			mu.Lock()
			defer mu.Unlock()
			for k, v := range state {
				if err := emit([]byte(k + "=" + v)); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	work.Wait()
	must(t, l.Close())
	_, got, err := open(t, dir)
	must(t, err)
	replayed := map[string]string{}
	for _, r := range got {
		k, v, _ := bytes.Cut([]byte(r), []byte("="))
		replayed[string(k)] = string(v)
	}
	if len(replayed) != len(state) {
		t.Fatalf("%d keys, want %d", len(replayed), len(state))
	}
	for k, v := range state {
		if replayed[k] != v {
			t.Errorf("%s is %s, want %s", k, replayed[k], v)
		}
	}
}

func TestUnfinishedCompactionIsForgotten(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	must(t, l.Append([]byte("kept")))
	must(t, l.Close())
	must(t, os.WriteFile(filepath.Join(dir, "journal.new"), []byte("half"), 0o600))
	if _, got, err := open(t, dir); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "journal.new")); !os.IsNotExist(err) {
		t.Errorf("journal.new: %v", err)
	}
}

// A journal's bytes that came into a payload, from wherever, are no records, even
// where the search for the next one comes upon them.
func TestRecordsInPayloads(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	for i := range 5 {
		must(t, l.Append(fmt.Appendf(nil, "record %d", i)))
	}
	text, err := os.ReadFile(file(dir))
	must(t, err)
	at := l.Size()
	must(t, l.Append(text))
	must(t, l.Append([]byte("last")))
	must(t, l.Close())
	whole, err := os.ReadFile(file(dir))
	must(t, err)
	whole[at]++ // the length that would step over it
	must(t, os.WriteFile(file(dir), whole, 0o600))
	_, got, err := open(t, dir)
	if !storage.Is(err, storage.Corrupt) || len(got) != 6 || got[5] != "last" {
		t.Errorf("%q, %v", got, err)
	}
}

// A damaged journal is kept, with or without a header, and the new one works.
func TestDamagedIsKept(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(t, dir)
	must(t, err)
	for i := range 3 {
		must(t, l.Append(fmt.Appendf(nil, "record %d", i)))
	}
	must(t, l.Close())
	whole, err := os.ReadFile(file(dir))
	must(t, err)
	for name, x := range map[string]struct {
		spoil func(b []byte) []byte
		left  int
	}{
		"NoHeader":    {func(b []byte) []byte { clear(b[:24]); return b }, 0},
		"WrongHeader": {func(b []byte) []byte { b[9]++; return b }, 0},
		"Middle":      {func(b []byte) []byte { b[50]++; return b }, 2},
		"LastHead":    {func(b []byte) []byte { clear(b[len(b)-12-len("record 2") : len(b)-len("record 2")]); return b }, 2},
		"LastTwo":     {func(b []byte) []byte { clear(b[len(b)-2*(12+len("record 2")):]); return b }, 1},
		"Tail":        {func(b []byte) []byte { return append(b, make([]byte, 100)...) }, 3},
		"LongTail":    {func(b []byte) []byte { return append(b, make([]byte, 17<<20)...) }, 3},
	} {
		dir := t.TempDir()
		bad := x.spoil(bytes.Clone(whole))
		must(t, os.WriteFile(file(dir), bad, 0o600))
		l, got, err := open(t, dir)
		if !storage.Is(err, storage.Corrupt) || len(got) != x.left {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		must(t, l.Append([]byte("after")))
		must(t, l.Compact(func(emit func([]byte) error) error { return emit([]byte("live")) }))
		must(t, l.Close())
		if kept, err := os.ReadFile(file(dir) + ".damaged"); err != nil || !bytes.HasPrefix(kept, bad) {
			t.Errorf("%s: kept are %d bytes of %d, %v", name, len(kept), len(bad), err)
		}
		if _, got, err := open(t, dir); err != nil || len(got) != 1 {
			t.Errorf("%s: afterwards %q, %v", name, got, err)
		}
		must(t, journal.Remove(dir))
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s: removed, and left are %v, %v", name, left, err)
		}
	}
}

// Each damaged journal is kept: one that is found damaged again, before a compaction
// has written it anew, once, and another one beside it.
func TestNoDamagedTakesTheOthersPlace(t *testing.T) {
	dir := t.TempDir()
	var want [][]byte
	for round := range 3 {
		l, _, err := open(t, dir)
		must(t, err)
		for i := range 3 {
			must(t, l.Append(fmt.Appendf(nil, "round %d, record %d", round, i)))
		}
		must(t, l.Close())
		bad, err := os.ReadFile(file(dir))
		must(t, err)
		if bad[40]++; round == 1 {
			clear(bad[:24])
		}
		must(t, os.WriteFile(file(dir), bad, 0o600))
		want = append(want, bad)
		l, _, err = open(t, dir)
		if !storage.Is(err, storage.Corrupt) {
			t.Errorf("round %d: %v", round, err)
		}
		must(t, l.Close())
		l, _, err = open(t, dir)
		if round != 1 && !storage.Is(err, storage.Corrupt) {
			t.Errorf("round %d, again: %v", round, err)
		}
		must(t, l.Compact(func(emit func([]byte) error) error { return emit([]byte("live")) }))
		must(t, l.Close())
	}
	kept, err := journal.Kept(dir)
	if err != nil || len(kept) != len(want) {
		t.Fatalf("kept are %q, %v", kept, err)
	}
	for i, name := range kept {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.HasPrefix(got, want[i]) {
			t.Errorf("%s has %d bytes of %d, %v", name, len(got), len(want[i]), err)
		}
	}
}
