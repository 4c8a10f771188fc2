package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// model is what the records of a test say: keys and values.
type model struct {
	acked map[string]string   // by the last Append that returned nil
	maybe map[string][]string // refused since then
	ever  map[string][]string
	count int
}

func newModel() *model {
	return &model{acked: map[string]string{}, maybe: map[string][]string{}, ever: map[string][]string{}}
}

func (m *model) append(l *Log, size int, reserved bool) error {
	m.count++
	k, v := fmt.Sprintf("k%d", m.count%5), fmt.Sprintf("%d %s", m.count, strings.Repeat("x", size))
	m.ever[k] = append(m.ever[k], v)
	add := l.Append
	if reserved {
		add = l.AppendReserved
	}
	err := add([]byte(k + "=" + v))
	if err == nil {
		m.acked[k], m.maybe[k] = v, nil
	} else {
		m.maybe[k] = append(m.maybe[k], v)
	}
	return err
}

func (m *model) live(emit func([]byte) error) error {
	for k, v := range m.acked {
		if err := emit([]byte(k + "=" + v)); err != nil {
			return err
		}
	}
	return nil
}

// reopen replays. After the loss of the machine anything may be missing (lossy),
// and until the next compaction the journal says so (damaged), but nothing may be
// wrong.
func (m *model) reopen(t *testing.T, d *memDisk, lossy, damaged bool) *Log {
	t.Helper()
	got := map[string]string{}
	l, err := open(d, func(r []byte) error {
		k, v, _ := bytes.Cut(r, []byte("="))
		if !slices.Contains(m.ever[string(k)], string(v)) {
			t.Errorf("nobody wrote %.20q", r)
		}
		got[string(k)] = string(v)
		return nil
	})
	if err != nil && (!damaged || !storage.Is(err, storage.Corrupt)) {
		t.Errorf("open: %v", err)
	}
	for k, v := range m.acked {
		if got[k] != v && !slices.Contains(m.maybe[k], got[k]) && !lossy {
			t.Errorf("%s is %.10q, acknowledged was %.10q", k, got[k], v)
		}
	}
	m.acked, m.maybe = got, map[string][]string{}
	return l
}

// scenario is what a process does; errors of the disk do not end it.
func (m *model) scenario(d *memDisk) {
	for range 2 {
		l, err := open(d, func([]byte) error { return nil })
		if l == nil {
			continue
		}
		_ = err
		for i := range 6 {
			_ = m.append(l, []int{1, 700, 5000}[i%3], i%4 == 3)
		}
		for range 2 {
			_ = l.Compact(func(emit func([]byte) error) error {
				_ = m.append(l, 300, false)
				err := m.live(emit)
				_ = m.append(l, 9000, true)
				return err
			})
			_ = m.append(l, 50, false)
		}
		_ = l.Close()
	}
}

// Each step on the disk fails in turn, in each way, once and from then on. What
// was acknowledged is replayed, what nobody wrote is not, and it goes on.
func TestFaultAtEachStep(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, unable := range []bool{false, true} {
		count := newMemDisk(seed)
		count.unable = unable
		newModel().scenario(count)
		for f, name := range faultNames {
			for _, lasts := range []int{1, 1 << 30} {
				if f == noFault || lasts > 1 && f >= killed {
					continue // the dead stay dead
				}
				for step := 1; step <= count.steps; step++ {
					d := newMemDisk(seed + uint64(step))
					d.unable = unable
					d.failAt, d.failFor, d.fault = step, lasts, f
					m := newModel()
					m.scenario(d)
					next := d.reboot()
					// Half a record that could not be taken back looks like a damaged one.
					damaged := f == powerLoss || (f == partly || f == partlyFull) && lasts > 1
					for i := range 3 {
						l := m.reopen(t, next, i == 0 && f == powerLoss, i < 2 && damaged)
						if l == nil {
							t.Fatalf("seed %d, %s at step %d", seed, name, step)
						}
						for range 3 {
							if err := m.append(l, 100, i == 1); err != nil {
								t.Errorf("the disk is well again: %v", err)
							}
						}
						if i == 1 {
							if err := l.Compact(m.live); err != nil {
								t.Errorf("the disk is well again: %v", err)
							}
						}
						_ = l.Close()
					}
					if next.files[freshed] != nil {
						t.Errorf("%s is left", freshed)
					}
					if t.Failed() {
						t.Fatalf("seed %d, %s (%d) at step %d of %d, unable %v", seed, name, lasts, step, count.steps, unable)
					}
				}
			}
		}
		t.Logf("%d steps", count.steps)
	}
}

// A rename that was carried out and reported as failed, when nobody can say
// which: nothing is acknowledged that the next process would not find.
func TestLostName(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	l := m.reopen(t, d, false, false)
	if err := m.append(l, 10, false); err != nil {
		t.Fatal(err)
	}
	renames := &renameFails{memDisk: d}
	l.disk = renames
	renames.fail = true
	if err := l.Compact(m.live); err == nil {
		t.Error("no word of it")
	}
	if err := m.append(l, 10, false); err == nil {
		t.Error("appended to a file that may have no name")
	}
	renames.fail = false
	if err := l.Compact(m.live); err != nil {
		t.Error(err)
	}
	if err := m.append(l, 10, false); err != nil {
		t.Error(err)
	}
	_ = m.reopen(t, d.reboot(), false, false)
}

type renameFails struct {
	*memDisk
	fail bool
}

func (r *renameFails) rename(from, to string) error {
	err := r.memDisk.rename(from, to)
	if r.fail {
		return errDead
	}
	return err
}

func (r *renameFails) names(name string, f file) (bool, error) {
	if r.fail {
		return false, errDead
	}
	return r.memDisk.names(name, f)
}

// A disk that cannot be read is no empty journal: nothing is changed.
func TestUnreadable(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	m.scenario(d)
	for step := 2; step <= 4; step++ { // behind the removal of what a compaction left
		d.failAt, d.failFor, d.fault = d.steps+step, 1, broken
		if l, err := open(d, func([]byte) error { return nil }); l != nil || err == nil {
			t.Errorf("step %d: %v", step, err)
		}
	}
	_ = m.reopen(t, d, false, false)
}

// An error of the one who replays is his own, whatever its kind.
func TestReplayFails(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	m.scenario(d)
	want := storage.Errorf(storage.Corrupt, "an unknown record")
	if l, err := open(d, func([]byte) error { return want }); l != nil || !storage.Is(err, storage.Corrupt) {
		t.Errorf("%v", err)
	}
	if d.files[aside] != nil {
		t.Error("the journal was taken for damaged")
	}
	_ = m.reopen(t, d, false, false)
}

// What was refused is not replayed, though the disk had taken all of it.
func TestRefusedIsGone(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	l := m.reopen(t, d, false, false)
	for f, name := range faultNames {
		if f == noFault || f >= killed {
			continue
		}
		if err := m.append(l, 10, false); err != nil {
			t.Fatal(err)
		}
		d.failAt, d.failFor, d.fault = d.steps+1, 1, f
		if err := m.append(l, 5000, false); err == nil {
			t.Errorf("%s: acknowledged", name)
		}
		m.maybe = map[string][]string{}
		d = d.reboot()
		l = m.reopen(t, d, false, false)
	}
}

// As long as a damaged journal cannot be kept under another name, no compaction takes
// the one that it has.
func TestDamagedThatCannotBeKept(t *testing.T) {
	d := newMemDisk(1)
	m := newModel()
	l := m.reopen(t, d, false, false)
	for range 3 {
		if err := m.append(l, 100, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.files[name].WriteAt([]byte("damage"), headerSize+40); err != nil {
		t.Fatal(err)
	}
	links := &linkFails{memDisk: d, fail: true}
	l, err := open(links, func([]byte) error { return nil })
	if !storage.Is(err, storage.Corrupt) {
		t.Fatalf("open: %v", err)
	}
	was := d.files[name]
	if err := l.Compact(m.live); err == nil || d.files[name] != was {
		t.Errorf("compacted: %v", err)
	}
	links.fail = false
	if err := l.Compact(m.live); err != nil || d.files[aside] != was {
		t.Errorf("it can be kept now: %v", err)
	}
}

type linkFails struct {
	*memDisk
	fail bool
}

func (l *linkFails) link(from, to string) error {
	if l.fail {
		return errDead
	}
	return l.memDisk.link(from, to)
}
