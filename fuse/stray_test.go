package fuse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// acked is a write that was acknowledged and not committed.
type acked struct {
	off  int
	data []byte
}

// strayScene is what a mounter leaves that died with writes of all kinds uncommitted.
type strayScene struct {
	*caller
	bucket *memory.Bucket
	ids    map[string]uint64
	// was is what is committed of a file, writes is what waits.
	was    map[string][]byte
	writes map[string][]acked
	// numbers of the files that hold what waits.
	numbers map[string]uint64
}

// What follows is made once, and used again: under the race detector a loop over bytes
// is slow, and so are large slices that are new.
var (
	// committed is what the files of all scenes have at first. Nobody changes it.
	committed = sync.OnceValue(func() []byte { return bytes.Repeat([]byte("o"), storage.ChunkSize+200<<10) })
	// buffers for the contents of files.
	buffers = sync.Pool{New: func() any { return new([]byte) }}
)

// texts by seed.
var texts = sync.OnceValue(func() (all [8][]byte) {
	for seed := range all {
		b := streamed(300 << 10)
		for i := range b {
			b[i] = b[i]<<3 | byte(seed) | 1
		}
		all[seed] = b
	}
	return all
})

// text is n bytes that are found nowhere else, and no zeros.
func text(seed, n int) []byte { return bytes.Clone(texts()[seed][:n]) }

// boots says how often the machine is started anew after it.
func newStrayScene(t *testing.T, boots uint64) *strayScene {
	bucket := memory.NewBucket(1 << 30)
	c := begin(t, bucket.Volume())
	s := &strayScene{caller: c, bucket: bucket, ids: map[string]uint64{}, was: map[string][]byte{}, writes: map[string][]acked{}, numbers: map[string]uint64{}}
	for name, size := range map[string]int{"small": 600, "large": 700 << 10, "again": 500 << 10, "grown": 300 << 10, "streamed": storage.ChunkSize + 200<<10} {
		id, st := c.create(1, name)
		c.ok("create", st)
		s.ids[name], s.was[name] = id, committed()[:size]
		c.stream(id, s.was[name], 0)
		c.ok("fsync", c.fsync(id))
	}
	c.fs.boot -= boots
	if err := c.fs.compact(); err != nil { // what is over is over
		t.Fatal(err)
	}
	seed := 0
	write := func(name string, off, n int) {
		seed++
		data := text(seed%4*2, n)
		copy(data, fmt.Sprintf("write %d of %s", seed, name))
		c.ok("write", c.write(s.ids[name], data, int64(off)))
		// What lies on both sides of the end of a chunk may be kept in two files.
		if cut := storage.ChunkSize - off; cut > 0 && cut < n {
			s.writes[name] = append(s.writes[name], acked{off, data[:cut]})
			off, data = storage.ChunkSize, data[cut:]
		}
		s.writes[name] = append(s.writes[name], acked{off, data})
	}
	write("small", 0, 100)
	write("small", 300, 100)
	for at := 0; at < 640<<10; at += 128 << 10 {
		write("large", at+1000, 128<<10-3000) // with gaps, in blocks and between
	}
	// Its first stage is committed and gone.
	c.stream(s.ids["again"], bytes.Repeat([]byte("p"), 500<<10), 0)
	c.ok("fsync", c.fsync(s.ids["again"]))
	s.was["again"] = bytes.Repeat([]byte("p"), 500<<10)
	write("again", 280<<10, 10000)
	write("again", 400<<10, 10000)
	// From memory to a file.
	write("grown", 10, 5000)
	write("grown", 270<<10, 5000)
	write("grown", 6000, 5000)
	for at := 0; at+128<<10 <= len(s.was["streamed"]); at += 128 << 10 {
		write("streamed", at, 128<<10)
	}
	c.land(s.ids["streamed"])
	for name, id := range s.ids {
		s.numbers[name] = c.fs.table.get(id).mu.stage.number
	}
	return s
}

// records are where those of a journal stand: head and payload.
func records(t *testing.T, file []byte) (all []span) {
	t.Helper()
	for at := int64(24); at < int64(len(file)); {
		end := at + 12 + int64(binary.LittleEndian.Uint32(file[at:]))
		all = append(all, span{at, end})
		at = end
	}
	if len(all) == 0 || all[len(all)-1].to != int64(len(file)) {
		t.Fatal("this is no journal as this test knows it")
	}
	return all
}

// TestDamagedRecord damages each record of a journal in turn. Whatever it was:
// every byte that was acknowledged is in the bucket or kept aside, none is in the
// bucket that nobody wrote, and it is told.
func TestDamagedRecord(t *testing.T) {
	spoils := map[string]func(file []byte, r span) []byte{
		"head":    func(file []byte, r span) []byte { file[r.from+9] ^= 0x10; return file },
		"payload": func(file []byte, r span) []byte { file[r.from+12] ^= 0x10; return file },
		"cut":     func(file []byte, r span) []byte { return file[:r.from] }, // as a power cut does
	}
	count := len(records(t, newStrayScene(t, 0).leave(t)))
	t.Logf("%d records", count)
	if count < 60 {
		t.Fatal("this scene has too little in it")
	}
	for how, spoil := range spoils {
		for _, fresh := range []bool{true, false} {
			if !fresh && how != "head" {
				continue // what happens before anybody asks is the same
			}
			for i := range count {
				// A test for each: what a scene takes of memory and disk goes with its test. One
				// after the other: two at a time took longer under the race detector.
				name := fmt.Sprintf("%s of %d, all died: %v", how, i, fresh)
				if !t.Run(name, func(t *testing.T) { damagedRecord(t, how, spoil, fresh, i) }) {
					return
				}
			}
		}
	}
}

// damagedRecord damages one record of a new scene.
func damagedRecord(t *testing.T, how string, spoil func([]byte, span) []byte, fresh bool, i int) {
	s := newStrayScene(t, map[string]uint64{"cut": 1}[how])
	file := s.leave(t)
	all := records(t, file)
	if len(all) <= i {
		return
	}
	lost, err := parseRecord(file[all[i].from+12 : all[i].to])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.journal(), spoil(file, all[i]), 0o600); err != nil {
		t.Fatal(err)
	}
	s.caller = s.successor(fresh)
	s.settle(fresh)
	var named map[uint64]bool
	if how == "cut" {
		named = spilled(t, file, all[:i])
	}
	s.check(t, lost.kind, named)
	if t.Failed() {
		t.Fatalf("%s of record %d, of kind %d and node %d, all died: %v; nodes: %v", how, i, lost.kind, lost.id, fresh, s.ids)
	}
}

// spilled are the numbers of the files that records tell of.
func spilled(t *testing.T, file []byte, all []span) map[uint64]bool {
	t.Helper()
	named := map[uint64]bool{}
	for _, at := range all {
		r, err := parseRecord(file[at.from+12 : at.to])
		if err != nil {
			t.Fatal(err)
		}
		if r.kind == recSpill {
			named[r.a] = true
		}
	}
	return named
}

// TestNothingIsGathered: without damage nothing is kept aside, and no file stays.
func TestNothingIsGathered(t *testing.T) {
	for _, x := range []struct {
		fresh bool
		boots uint64
	}{{true, 0}, {false, 0}, {true, 1}} {
		fresh := x.fresh
		s := newStrayScene(t, x.boots)
		s.leave(t)
		s.caller = s.successor(fresh)
		s.settle(fresh)
		s.check(t, 0, nil)
		if kept, err := s.fs.Leftovers(); err != nil || kept > 0 {
			t.Errorf("%d leftovers, %v", kept, err)
		}
		if err := s.fs.Retire(); err != nil {
			t.Error(err)
		}
	}
}

func (s *strayScene) journal() string { return filepath.Join(s.fs.opts.Dir, "journal") }

// leave lets the mounter die and returns its journal.
func (s *strayScene) leave(t *testing.T) []byte {
	t.Helper()
	s.die()
	file, err := os.ReadFile(s.journal())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// settle brings all that waits where it belongs.
func (s *strayScene) settle(fresh bool) {
	s.t.Helper()
	if !fresh {
		for _, id := range s.ids {
			_ = s.close(id) // EIO, where something is missing
		}
	}
	s.fs.sweep(s.t.Context())
	s.end()
}

// check looks for every write. gone is the kind of the record that is missing, or of
// the first of those that were cut off: then named are the stages' files that the
// others tell of. What was written to those last is as if it had not been
// acknowledged, and so is what was in the journal alone.
func (s *strayScene) check(t *testing.T, gone recordKind, named map[uint64]bool) {
	t.Helper()
	kept := s.kept(t)
	cut := named != nil
	if n, err := s.fs.Leftovers(); err != nil || gone != 0 && !cut && n == 0 {
		t.Errorf("%d leftovers, %v: no word of the damage", n, err)
	}
	other := mount(t, s.bucket.Volume())
	want, buf := buffers.Get().(*[]byte), buffers.Get().(*[]byte)
	defer func() { buffers.Put(want); buffers.Put(buf) }()
	for _, name := range slices.Sorted(maps.Keys(s.was)) {
		id, st := other.lookup(1, name)
		other.ok("lookup", st)
		*want = append((*want)[:0], s.was[name]...)
		for _, w := range s.writes[name] {
			copy((*want)[w.off:], w.data)
		}
		size := len(*want)
		*buf = slices.Grow((*buf)[:0], size+beyond)[:size+beyond]
		got := other.readInto(id, 0, *buf)
		if len(got) != size {
			t.Errorf("%s has %d bytes, want %d", name, len(got), size)
			continue
		}
		if i := differs(got, *want, s.was[name]); i >= 0 {
			t.Errorf("%s has a byte at %d that nobody wrote: %x", name, i, got[i])
		}
		for _, w := range s.writes[name] {
			if bytes.Equal(got[w.off:w.off+len(w.data)], w.data) || slices.ContainsFunc(kept, func(b []byte) bool { return bytes.Contains(b, w.data) }) {
				continue
			}
			switch {
			case cut && (s.numbers[name] == 0 || named[s.numbers[name]]):
			case name == "streamed" && (gone == recLaid || cut): // it is in a chunk that nothing knows of any more
			default:
				t.Errorf("%s: what was written at %d is neither in the bucket nor kept", name, w.off)
			}
		}
	}
}

// differs is where got first has a byte that neither a nor b has there, which are as
// long; -1 when it has none. What equals a is passed over in blocks: the race detector
// makes a loop over some megabytes take longer than all else here.
func differs(got, a, b []byte) int {
	const block = 4096
	for from := 0; from < len(got); from += block {
		to := min(from+block, len(got))
		if bytes.Equal(got[from:to], a[from:to]) {
			continue
		}
		for i := from; i < to; i++ {
			if got[i] != a[i] && got[i] != b[i] {
				return i
			}
		}
	}
	return -1
}

// kept are the contents of all that is kept aside.
func (s *strayScene) kept(t *testing.T) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.fs.opts.Dir, leftovers.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f, leftovers.Described) {
			all = append(all, b)
		}
	}
	return all
}

// TestStageFilesThatAreNeedless: a mounter that dies between two steps leaves the file
// of a stage whose content is elsewhere. It is removed, and what else has such a name
// or nearly is not.
func TestStageFilesThatAreNeedless(t *testing.T) {
	s := newStrayScene(t, 0)
	dir := s.fs.opts.Dir
	large := s.fs.stagePathOf(s.fs.table.get(s.ids["large"]))
	waits, err := os.ReadFile(large)
	if err != nil {
		t.Fatal(err)
	}
	s.ok("fsync", s.fsync(s.ids["large"]))
	small := s.read(s.ids["small"], 0, 50)
	s.leave(t)
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Base(large), waits)                   // died after the record that it is committed
	put(stageName(s.ids["small"], 7), small)           // died while the bytes were moved from memory to a file
	put(stageName(s.ids["grown"], 9), nil)             // and before
	put(stageName(s.ids["small"], 8), []byte("other")) // nobody knows
	put(stageName(12345, 3), []byte("nobody's"))
	for _, name := range []string{"stage-", "stage-mine", "stage-5.txt", "stage-5-6-7", "stage-05", "notes"} {
		put(name, []byte("a user's"))
	}
	if err := os.Mkdir(filepath.Join(dir, "stage-77"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.caller = s.successor(false)
	s.settle(false)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range left {
		names = append(names, filepath.Base(p))
	}
	if want := []string{"journal", leftovers.Dir, "notes", "room", "stage-", "stage-05", "stage-5-6-7", "stage-5.txt", "stage-77", "stage-mine"}; !slices.Equal(names, want) {
		t.Errorf("left are %q, want %q", names, want)
	}
	var kept []string
	for _, b := range s.kept(t) {
		kept = append(kept, string(b))
	}
	slices.Sort(kept)
	if want := []string{"nobody's", "other"}; !slices.Equal(kept, want) {
		t.Errorf("kept are %.40q, want %q", kept, want)
	}
	if err := s.fs.Retire(); !storage.Is(err, storage.InUse) {
		t.Errorf("the folder is retired: %v", err)
	}
}

// TestStrayThatCannotBeMoved: a file that cannot be kept aside stays, is counted, and
// is kept by the next mounter.
func TestStrayThatCannotBeMoved(t *testing.T) {
	s := newStrayScene(t, 0)
	dir := s.fs.opts.Dir
	s.leave(t)
	path, blocked := filepath.Join(dir, stageName(12345, 3)), filepath.Join(dir, leftovers.Dir)
	for _, p := range []string{path, blocked} {
		if err := os.WriteFile(p, []byte("somebody's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.successor(true)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if n, err := c.fs.Leftovers(); err != nil || n != 1 {
		t.Errorf("%d leftovers, %v, want 1", n, err)
	}
	c = c.crash(true)
	if n, err := c.fs.Leftovers(); err != nil || n != 1 {
		t.Errorf("%d leftovers, %v, want 1", n, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("it is not moved: %v", err)
	}
	c.end()
}

// TestStageOfAnOlderMounter: one that gave a node's files no numbers is taken over
// from: what waits is committed, and what is over goes.
func TestStageOfAnOlderMounter(t *testing.T) {
	bucket := memory.NewBucket(1 << 30)
	other := mount(t, bucket.Volume())
	dir := t.TempDir()
	log, err := journal.Open(dir, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ids, want := map[string]uint64{}, text(2, 300<<10)
	for _, name := range []string{"waits", "over"} {
		id, st := other.create(1, name)
		other.ok("create", st)
		other.ok("close", other.close(id))
		ids[name] = id
		e, err := bucket.Volume().Files.Lookup(t.Context(), storage.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("stage-%d", id)), want, 0o600); err != nil {
			t.Fatal(err)
		}
		records := []record{
			{kind: recName, id: id, parent: 1, name: name, a: identity(e), b: e.Inode},
			{kind: recStage, id: id, a: uncut},
			{kind: recSpill, id: id},
			{kind: recSpan, id: id, b: uint64(len(want))},
		}
		if name == "over" {
			records = append(records, record{kind: recClean, id: id})
		}
		for _, r := range records {
			if err := log.Append(r.bytes()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	c := &caller{t, New(bucket.Volume(), Options{Dir: dir, Fresh: true})}
	if err := c.fs.Recover(); err != nil {
		t.Fatal(err)
	}
	c.fs.Start(silent{})
	c.end()
	if err := c.fs.Retire(); err != nil { // nothing is left or kept
		t.Error(err)
	}
	for name, want := range map[string][]byte{"waits": want, "over": nil} {
		id, st := other.lookup(1, name)
		other.ok("lookup", st)
		other.fs.table.get(id).doubt()
		other.ok("open", other.open(id))
		other.same(name, id, want)
	}
}
