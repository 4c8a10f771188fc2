package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"sync"
	"syscall"
)

const pageSize = 4096

// memDisk is a folder in memory that fails as disks, processes and power do: each
// call is a step, and each step can fail, be done in part, or be the last one.
type memDisk struct {
	mu    sync.Mutex
	rng   *rand.Rand
	files map[string]*memFile
	all   []*memFile
	// past is what the names were after each change since the last sync.
	past []map[string]*memFile

	steps   int
	failAt  int // the step that the fault begins at; zero: none
	failFor int // how many steps it lasts
	fault   fault
	dead    bool
	// capacity in pages; zero: endless. unable: no allocating in advance.
	capacity int
	unable   bool
}

type fault int

const (
	noFault fault = iota
	broken
	full
	partly     // half of a write is done, then EIO
	partlyFull // the same, as a disk does that becomes full
	done       // all is done, and EIO is said
	killed     // half is done, then the process is gone
	powerLoss  // the same, and of what was never synced (all) anything may be gone
)

var faultNames = map[fault]string{
	noFault: "none", broken: "broken", full: "full", partly: "partly", partlyFull: "partlyFull", done: "done", killed: "killed", powerLoss: "powerLoss",
}

var errDead = errors.New("this process is dead")

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{rng: rand.New(rand.NewPCG(seed, 1)), files: map[string]*memFile{}, past: []map[string]*memFile{{}}}
}

type memFile struct {
	disk   *memDisk
	length int64
	least  int64 // the shortest that it ever was
	pages  map[int64]*[pageSize]byte
	before map[int64]*[pageSize]byte // what a power cut may leave; nil is a hole
	spare  map[int64]bool            // allocated, and not written
	// forgotten pages were to be synced when that failed: the kernel has taken them
	// for clean, and no later sync brings them to the disk.
	forgotten map[int64]bool
	open      int
}

// step counts one; how much of it is to be done, in halves, and what is returned.
func (m *memDisk) stepLocked() (halves int, err error) {
	if m.dead {
		return 0, errDead
	}
	m.steps++
	if m.failAt == 0 || m.steps < m.failAt || m.steps >= m.failAt+m.failFor {
		return 2, nil
	}
	switch m.fault {
	case broken:
		return 0, syscall.EIO
	case full:
		return 0, syscall.ENOSPC
	case partly:
		return 1, syscall.EIO
	case partlyFull:
		return 1, syscall.ENOSPC
	case done:
		return 2, syscall.EIO
	case killed, powerLoss:
		m.dead = true
		return 1, errDead
	case noFault:
	}
	return 2, nil
}

// whole is a step that cannot be done in part.
func (m *memDisk) wholeLocked() (do bool, err error) {
	halves, err := m.stepLocked()
	return halves == 2 || halves == 1 && m.rng.IntN(2) == 0, err
}

func (m *memDisk) changedLocked() { m.past = append(m.past, maps.Clone(m.files)) }

func (m *memDisk) usedLocked() (n int) {
	for _, f := range m.all {
		named := f.open > 0
		for _, g := range m.files {
			named = named || f == g
		}
		if named {
			n += len(f.pages) + len(f.spare)
		}
	}
	return n
}

func (m *memDisk) fitsLocked(pages int) bool {
	return m.capacity == 0 || m.usedLocked()+pages <= m.capacity
}

// reboot ends the fault and the process.
func (m *memDisk) reboot() *memDisk {
	m.mu.Lock()
	defer m.mu.Unlock()
	cut := m.fault == powerLoss && m.dead
	next := newMemDisk(m.rng.Uint64())
	next.capacity, next.unable = m.capacity, m.unable
	names := m.files
	if cut {
		names = m.past[m.rng.IntN(len(m.past))]
	}
	copies := map[*memFile]*memFile{}
	for name, f := range names {
		if copies[f] == nil {
			copies[f] = f.after(next, cut, m.rng)
		}
		next.files[name] = copies[f]
	}
	next.past = []map[string]*memFile{maps.Clone(next.files)}
	m.dead = true
	return next
}

func (f *memFile) after(next *memDisk, cut bool, rng *rand.Rand) *memFile {
	g := &memFile{disk: next, length: f.length, least: f.length, pages: f.pages, before: map[int64]*[pageSize]byte{}, spare: f.spare, forgotten: map[int64]bool{}}
	next.all = append(next.all, g)
	if !cut {
		return g
	}
	if rng.IntN(2) == 0 {
		g.length = f.least + rng.Int64N(f.length-f.least+1)
		g.least = g.length
	}
	for i, p := range f.before {
		switch rng.IntN(3) {
		case 0: // nothing of it came to the disk
			g.pages[i] = p
		case 1: // some sectors did
			torn := [pageSize]byte{}
			if p != nil {
				torn = *p
			}
			if now := g.pages[i]; now != nil {
				at := 512 * rng.IntN(8)
				copy(torn[at:], now[at:])
			}
			g.pages[i] = &torn
		}
		if g.pages[i] == nil {
			delete(g.pages, i)
		}
	}
	for i, p := range g.pages { // what lies behind the end is not seen when the file grows again
		if at := g.length - i*pageSize; at <= 0 {
			delete(g.pages, i)
		} else if at < pageSize {
			clear(p[at:])
		}
	}
	return g
}

func (m *memDisk) open(name string, fresh bool) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do, failed := m.wholeLocked()
	if do {
		f := m.files[name]
		if f == nil {
			f = &memFile{disk: m, pages: map[int64]*[pageSize]byte{}, before: map[int64]*[pageSize]byte{}, spare: map[int64]bool{}, forgotten: map[int64]bool{}}
			m.files[name], m.all = f, append(m.all, f)
			m.changedLocked()
		}
		if fresh {
			f.cutLocked(0)
		}
		if failed == nil {
			f.open++
			return f, nil
		}
	}
	return nil, failed
}

func (m *memDisk) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	do, failed := m.wholeLocked()
	if do && m.files[from] != nil {
		m.files[to] = m.files[from]
		delete(m.files, from)
		m.changedLocked()
	} else if do && failed == nil {
		return fs.ErrNotExist
	}
	return failed
}

func (m *memDisk) link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	do, failed := m.wholeLocked()
	if do && m.files[to] != nil {
		return fs.ErrExist
	}
	if do {
		m.files[to] = m.files[from]
		m.changedLocked()
	}
	return failed
}

func (m *memDisk) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	do, failed := m.wholeLocked()
	if do && m.files[name] != nil {
		delete(m.files, name)
		m.changedLocked()
	}
	return failed
}

func (m *memDisk) names(name string, f file) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, failed := m.stepLocked()
	return m.files[name] == f, failed
}

// sync of a folder: its names are what they are from now on.
func (m *memDisk) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	do, failed := m.wholeLocked()
	if do && failed == nil {
		m.past = []map[string]*memFile{maps.Clone(m.files)}
	}
	return failed
}

func (f *memFile) sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	do, failed := f.disk.wholeLocked()
	for i := range f.before {
		switch {
		case failed != nil:
			f.forgotten[i] = true
		case do && !f.forgotten[i]:
			delete(f.before, i)
		}
	}
	if do && failed == nil && len(f.before) == 0 {
		f.least = f.length
	}
	return failed
}

func (f *memFile) touchLocked(i int64) {
	delete(f.forgotten, i)
	if _, ok := f.before[i]; !ok {
		var old *[pageSize]byte
		if p := f.pages[i]; p != nil {
			old = new(*p)
		}
		f.before[i] = old
	}
}

func (f *memFile) cutLocked(size int64) {
	f.length, f.least = size, min(f.least, size)
	for i, p := range f.pages {
		if i*pageSize >= size {
			f.touchLocked(i)
			delete(f.pages, i)
		} else if i == size/pageSize {
			f.touchLocked(i)
			clear(p[size%pageSize:])
		}
	}
	for i := range f.spare {
		if i*pageSize >= size {
			delete(f.spare, i)
		}
	}
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	halves, failed := f.disk.stepLocked()
	switch halves {
	case 0:
		return 0, failed
	case 1:
		b = b[:f.disk.rng.IntN(len(b)+1)]
	}
	n := 0
	for len(b) > 0 {
		i, at := off/pageSize, int(off%pageSize)
		if f.pages[i] == nil && !f.spare[i] && !f.disk.fitsLocked(1) {
			return n, syscall.ENOSPC
		}
		f.touchLocked(i)
		if f.pages[i] == nil {
			f.pages[i] = new([pageSize]byte)
			delete(f.spare, i)
		}
		c := copy(f.pages[i][at:], b)
		b, off, n = b[c:], off+int64(c), n+c
		f.length = max(f.length, off)
	}
	return n, failed
}

func (f *memFile) ReadAt(b []byte, off int64) (n int, err error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if halves, failed := f.disk.stepLocked(); failed != nil && halves < 2 {
		return 0, failed
	}
	for len(b) > 0 && off < f.length {
		at := int(off % pageSize)
		part := b[:min(int64(len(b)), int64(pageSize-at), f.length-off)]
		clear(part)
		if p := f.pages[off/pageSize]; p != nil {
			copy(part, p[at:])
		}
		b, off, n = b[len(part):], off+int64(len(part)), n+len(part)
	}
	if len(b) > 0 {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	do, failed := f.disk.wholeLocked()
	if do {
		f.cutLocked(size)
	}
	return failed
}

func (f *memFile) size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	_, failed := f.disk.stepLocked()
	return f.length, failed
}

func (f *memFile) allocate(off, n int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.unable {
		return syscall.EOPNOTSUPP
	}
	halves, failed := f.disk.stepLocked()
	end := off + n*int64(halves)/2
	for i := off / pageSize; i*pageSize < end; i++ {
		if f.pages[i] != nil || f.spare[i] {
			continue
		}
		if !f.disk.fitsLocked(1) {
			return syscall.ENOSPC // what it has got it keeps, as ext4 does
		}
		f.spare[i] = true
	}
	return failed
}

func (f *memFile) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.open--
	return nil
}
