package redotest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/storage"
)

// replayBit marks a request that a mounter before has read (FUSE_UNIQUE_RESEND of
// linux/fuse.h).
const replayBit = uint64(1) << 63

// Options of a run.
type Options struct {
	// Open gives two clients of a new, empty bucket, and the number of its chunks,
	// or no such function where chunks go in their own time.
	Open func(t *testing.T) (a, b storage.Volume, chunks func() int)
	// Model is the same of a store that the right answers are made on; Open when it
	// is nil.
	Model func(t *testing.T) (a, b storage.Volume, chunks func() int)
	// Sample is how many of the combinations are tried, all when zero. They are
	// drawn by HOLDFAST_SEED, or by a seed that is logged.
	Sample int
	// Seed draws the sample.
	Seed uint64
}

// combination is one run.
type combination struct {
	change  change
	foreign foreign
	call    int
	after   bool
	// replay: the request is asked for again.
	replay bool
}

func (c combination) String() string {
	side := "before"
	if c.after {
		side = "after"
	}
	again := "nobody asks again"
	if c.replay {
		again = "asked again"
	}
	return fmt.Sprintf("%s, killed %s call %d, %s, %s", c.change.name, side, c.call, c.foreign.name, again)
}

// Run tries the combinations.
func Run(t *testing.T, o Options) {
	if o.Model == nil {
		o.Model = o.Open
	}
	var all []combination
	want := map[string]map[string]bool{}
	for _, c := range changes {
		calls := rehearse(t, o, c)
		for _, f := range foreigners {
			if c.target == "" && strings.HasPrefix(f.name, "target") {
				continue
			}
			for call := 1; call <= calls; call++ {
				for _, after := range []bool{false, true} {
					for _, replay := range []bool{false, true} {
						all = append(all, combination{c, f, call, after, replay})
					}
				}
			}
		}
	}
	total := len(all)
	if o.Sample > 0 && o.Sample < total {
		rng := rand.New(rand.NewPCG(o.Seed, 7))
		rng.Shuffle(total, func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:o.Sample]
	}
	t.Logf("seed %d: %d of %d combinations", o.Seed, len(all), total)
	for _, c := range all {
		// Who is told that it was done, and is alone, finds it done.
		alone := c.replay && c.foreign.name == "nobody"
		key := fmt.Sprint(c.change.name, c.foreign.name, alone)
		if want[key] == nil {
			want[key] = orders(t, o, c.change, c.foreign, alone)
		}
		try(t, o, c, want[key])
	}
}

// rehearse counts the calls of a change that nothing happens to.
func rehearse(t *testing.T, o Options, c change) int {
	a, _, _ := open(t, o.Model)
	store := newCoat(a, func() {})
	m := begin(t, store, t.TempDir(), true, c)
	store.arm(0, false)
	if st := c.run(m, 100); !st.Ok() && c.target != "g" {
		t.Fatalf("%s: %v", c.name, st)
	}
	n := store.calls()
	end(t, m)
	return n
}

// orders are the states that the change and the foreign writer may lead to: one
// after the other, or, unless it was certainly made, without the change.
func orders(t *testing.T, o Options, c change, f foreign, certain bool) map[string]bool {
	states := map[string]bool{}
	possible := [][]bool{{true, false}, {false, true}, {false}}
	if certain {
		possible = possible[:1]
	}
	for _, order := range possible {
		a, b, _ := open(t, o.Model)
		m := begin(t, newCoat(a, func() {}), t.TempDir(), true, c)
		for _, ours := range order {
			if ours {
				c.run(m, 100)
			} else {
				f.run(t.Context(), b, c)
			}
		}
		end(t, m)
		state, _ := state(t, b, countLost(c, f))
		states[state] = true
	}
	return states
}

func open(t *testing.T, store func(*testing.T) (a, b storage.Volume, chunks func() int)) (a, b storage.Volume, chunks func() int) {
	t.Helper()
	a, b, chunks = store(t)
	if err := furnish(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return a, b, chunks
}

// begin starts a mounter, which knows the names of the change.
func begin(t *testing.T, store *coat, dir string, fresh bool, c change) *mounter {
	t.Helper()
	m := &mounter{
		fs:    fuse.New(store.coated(), fuse.Options{Dir: dir, Fresh: fresh, Logger: slog.New(slog.DiscardHandler)}),
		nodes: map[storage.Path]uint64{},
	}
	if err := m.fs.Recover(); err != nil {
		t.Fatal(err)
	}
	m.fs.Start(silent{})
	select {
	case <-store.watching:
	case <-time.After(time.Minute):
		t.Fatal("the mounter does not watch")
	}
	if !fresh {
		return m
	}
	for _, p := range []storage.Path{c.source, c.target} {
		if p != "" {
			m.lookup(p)
		}
	}
	if c.open != "" {
		var out gofuse.OpenOut
		if st := m.fs.Open(nil, &gofuse.OpenIn{InHeader: header(m.nodes[c.open])}, &out); !st.Ok() {
			t.Fatalf("open %s: %v", c.open, st)
		}
	}
	return m
}

func end(t *testing.T, m *mounter) {
	t.Helper()
	if err := m.fs.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// silent is a kernel that caches nothing.
type silent struct{}

func (silent) InvalInode(uint64, int64, int64) error { return nil }
func (silent) InvalEntry(uint64, string) error       { return nil }

// try runs one combination.
func try(t *testing.T, o Options, c combination, want map[string]bool) {
	t.Helper()
	a, b, chunks := open(t, o.Open)
	dir, left := t.TempDir(), t.TempDir()
	store := newCoat(a, func() { copyDir(t, dir, left) })
	dying := begin(t, store, dir, true, c.change)
	store.arm(c.call, c.after)
	c.change.run(dying, 100)
	store.mu.Lock()
	dead := store.dead
	store.mu.Unlock()
	if !dead {
		t.Errorf("%v: it did not die", c)
	}
	_ = dying.fs.Close(t.Context()) // its goroutines; nothing reaches the store
	c.foreign.run(t.Context(), b, c.change)

	m := begin(t, newCoat(a, func() {}), left, false, c.change)
	m.nodes = maps.Clone(dying.nodes)
	if c.replay {
		st := c.change.run(m, 100|replayBit)
		if !st.Ok() && c.foreign.name == "nobody" && !(c.change.target == "g" && c.change.name == "link to a taken name") {
			t.Errorf("%v: %v", c, st)
		}
	}
	m.lookup(c.change.source) // settles what is left
	if c.change.open != "" {
		id := m.nodes[c.change.open]
		checkOpen(t, c, m, dying.nodes[c.change.open])
		m.fs.Release(nil, &gofuse.ReleaseIn{InHeader: header(id)})
	}
	end(t, m)
	got, used := state(t, b, countLost(c.change, c.foreign))
	if !want[got] {
		t.Errorf("seed %d: %v:\n%s\nwant one of\n%s", o.Seed, c, got, strings.Join(slices.Sorted(maps.Keys(want)), "\nor\n"))
	}
	if n := 0; chunks != nil && c.foreign.name == "nobody" {
		if n = chunks(); n != used {
			t.Errorf("seed %d: %v: %d chunks stay, %d are used", o.Seed, c, n, used)
		}
	}
}

// checkOpen reads by the handle that was open all the time: its content is there,
// unless somebody else has removed or replaced the file.
func checkOpen(t *testing.T, c combination, m *mounter, id uint64) {
	t.Helper()
	m.nodes[c.change.open] = id
	if c.foreign.name != "nobody" {
		return
	}
	buf := make([]byte, 10)
	r, st := m.fs.Read(nil, &gofuse.ReadIn{InHeader: header(id), Size: 10}, buf)
	if !st.Ok() {
		t.Errorf("%v: read of the open file: %v", c, st)
		return
	}
	got, _ := r.Bytes(buf)
	if !strings.HasPrefix(string(c.change.open), string(got[:1])) {
		t.Errorf("%v: the open file reads %q", c, got)
	}
}

// countLost says when the count of a file's names may stay one too high: somebody
// took it away from the name that a link of it was begun at. Its content stays
// too long then, and never goes too early.
func countLost(c change, f foreign) bool {
	return strings.Contains(c.name, "link") && !strings.Contains(c.name, "unlink") && slices.Contains([]string{"source removed", "source replaced", "source moved"}, f.name)
}

// state is what others see: names, contents, counts of links; and the number of
// chunks in use.
func state(t *testing.T, v storage.Volume, countLost bool) (string, int) {
	t.Helper()
	var lines []string
	names := map[string]int{}
	used := map[storage.ChunkID]bool{}
	var walk func(p storage.Path)
	counts := map[string]int{}
	walk = func(p storage.Path) {
		entries, err := v.Files.List(t.Context(), p, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			q := p.Join(e.Name)
			if e.IsDir() {
				lines = append(lines, string(q)+"/")
				walk(q)
				continue
			}
			line := fmt.Sprintf("%s=%s uid %d", q, content(t, v, e), e.UID)
			if !countLost {
				line += fmt.Sprintf(" links %d %q", max(1, e.Links), e.Linking)
			}
			lines = append(lines, line)
			if e.LinkID != "" {
				names[e.LinkID]++
				counts[e.LinkID] = e.Links
			}
			for _, c := range e.Chunks {
				used[c.ID] = true
			}
		}
	}
	walk("")
	for id, n := range names {
		if counts[id] < n || counts[id] > n && !countLost {
			lines = append(lines, fmt.Sprintf("a file of %d names counts %d", n, counts[id]))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), len(used)
}

func content(t *testing.T, v storage.Volume, e storage.Entry) string {
	t.Helper()
	b := make([]byte, e.Size)
	for _, c := range e.Chunks {
		if err := v.Chunks.Read(context.WithoutCancel(t.Context()), c, b[c.Offset:c.Offset+c.Size], 0); err != nil {
			return fmt.Sprintf("lost (%v)", err)
		}
	}
	return string(b)
}

// copyDir keeps what a dying mounter has left on the node.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	found, err := os.ReadDir(from)
	if err != nil {
		t.Error(err)
	}
	for _, f := range found {
		data, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), data, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
