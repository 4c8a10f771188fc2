package cache

import (
	"errors"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// memFolder is a folder in memory that fails as disks and power do: each change
// is a step, and each step can fail, be done in part, or be the last one.
type memFolder struct {
	mu     sync.Mutex
	files  map[string]*memFile
	locked bool
	rng    *rand.Rand

	id       bootID
	steps    int // changes so far
	failAt   int // the step that the fault begins at; zero: none
	failFor  int // how many steps it lasts
	fault    fault
	dead     bool  // the process is: nothing that it still does has an effect
	capacity int64 // bytes; zero: endless
	peak     int64 // the most that was ever allocated
}

type fault int

const (
	noFault   fault = iota
	refuse          // EIO, and nothing is done
	partly          // half of it is done, then EIO
	killed          // half of it is done, then the process is gone
	powerLoss       // the same, and of what was never synced (all) anything may be gone
)

var faultNames = map[fault]string{noFault: "", refuse: "refuse", partly: "partly", killed: "killed", powerLoss: "powerLoss"}

func newMemFolder(seed uint64) *memFolder {
	return &memFolder{id: bootID{1}, files: map[string]*memFile{}, rng: rand.New(rand.NewPCG(seed, 1))}
}

type memFile struct {
	folder *memFolder
	size   int64
	pages  map[int64]*[pageSize]byte
	before map[int64]*[pageSize]byte // of the pages that a power cut may undo; nil was a hole
}

// take is what Options.folder wants: the lock of a dead process is free.
func (m *memFolder) take(string) (folder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, storage.Errorf(storage.InUse, "locked")
	}
	m.locked = true
	return m, nil
}

func (m *memFolder) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked = m.dead; m.dead {
		return errDead
	}
	return nil
}

func (m *memFolder) boot() bootID { return m.id }

var errDead = errors.New("this process is dead")

// reboot ends the fault and the process, if it is still there.
func (m *memFolder) reboot() *memFolder {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := newMemFolder(m.rng.Uint64())
	next.id = m.id
	if m.fault == powerLoss && m.dead {
		next.id[1]++
	}
	for name, f := range m.files {
		g := &memFile{folder: next, size: f.size, pages: f.pages, before: map[int64]*[pageSize]byte{}}
		if m.fault == powerLoss && m.dead { // the process is, and the machine
			for i, p := range f.before {
				switch m.rng.IntN(3) {
				case 0: // nothing of it came to the disk
					g.pages[i] = p
				case 1: // some sectors did
					torn := [pageSize]byte{}
					if p != nil {
						torn = *p
					}
					if now := g.pages[i]; now != nil {
						cut := 512 * m.rng.IntN(8)
						copy(torn[cut:], now[cut:])
					}
					g.pages[i] = &torn
				}
				if g.pages[i] == nil {
					delete(g.pages, i)
				}
			}
		}
		next.files[name] = g
	}
	m.dead = true
	return next
}

func (m *memFolder) open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.stepLocked(); err != nil {
		return nil, err
	}
	f := m.files[name]
	if f == nil {
		f = &memFile{folder: m, pages: map[int64]*[pageSize]byte{}, before: map[int64]*[pageSize]byte{}}
		m.files[name] = f
	}
	return f, nil
}

// stepLocked counts a change; half says that it is done in part only.
func (m *memFolder) stepLocked() (half bool, err error) {
	if m.dead {
		return false, errDead
	}
	m.steps++
	if m.failAt == 0 || m.steps < m.failAt || m.steps >= m.failAt+m.failFor {
		return false, nil
	}
	switch m.fault {
	case refuse:
		return false, unix.EIO
	case partly:
		return true, unix.EIO
	case killed, powerLoss:
		m.dead = true
		return true, errDead
	case noFault:
	}
	return false, nil
}

func (m *memFolder) allocatedLocked() (n int64) {
	for _, f := range m.files {
		n += int64(len(f.pages)) * pageSize
	}
	return n
}

// most is what was ever allocated at a time.
func (m *memFolder) most() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peak
}

func (f *memFile) touchLocked(i int64) {
	if _, ok := f.before[i]; !ok {
		var old *[pageSize]byte
		if p := f.pages[i]; p != nil {
			old = new(*p)
		}
		f.before[i] = old
	}
}

func (f *memFile) writev(b [][]byte, off int64) (int, error) {
	m := f.folder
	m.mu.Lock()
	defer m.mu.Unlock()
	half, failed := m.stepLocked()
	if failed != nil && !half {
		return 0, failed
	}
	left := 0
	for _, x := range b {
		left += len(x)
	}
	if half {
		left = m.rng.IntN(left + 1)
	}
	done := 0
	for _, x := range b {
		x = x[:min(len(x), left-done)]
		for len(x) > 0 {
			i, at := (off+int64(done))/pageSize, int((off+int64(done))%pageSize)
			if f.pages[i] == nil && m.capacity > 0 && m.allocatedLocked() >= m.capacity {
				if done == 0 {
					return 0, unix.ENOSPC
				}
				return done, nil // as write(2) does
			}
			f.touchLocked(i)
			if f.pages[i] == nil {
				f.pages[i] = new([pageSize]byte)
			}
			n := copy(f.pages[i][at:], x)
			x, done = x[n:], done+n
		}
	}
	f.size = max(f.size, off+int64(done))
	m.peak = max(m.peak, m.allocatedLocked())
	return done, failed
}

func (f *memFile) readv(b [][]byte, off int64) (n int, err error) {
	f.folder.mu.Lock()
	defer f.folder.mu.Unlock()
	if f.folder.dead {
		return 0, errDead
	}
	for _, x := range b {
		for len(x) > 0 && off < f.size {
			at := int(off % pageSize)
			part := x[:min(int64(len(x)), int64(pageSize-at), f.size-off)]
			clear(part)
			if p := f.pages[off/pageSize]; p != nil {
				copy(part, p[at:])
			}
			x, off, n = x[len(part):], off+int64(len(part)), n+len(part)
		}
	}
	return n, nil
}

func (f *memFile) punch(off, n int64) error {
	f.folder.mu.Lock()
	defer f.folder.mu.Unlock()
	half, failed := f.folder.stepLocked()
	if failed != nil && !half {
		return failed
	}
	if half {
		n = n / pageSize / 2 * pageSize
	}
	for i := range f.pages {
		if i*pageSize >= off && i*pageSize < off+n {
			f.touchLocked(i)
			delete(f.pages, i)
		}
	}
	return failed
}

func (f *memFile) resize(size int64) error {
	f.folder.mu.Lock()
	defer f.folder.mu.Unlock()
	half, failed := f.folder.stepLocked()
	if failed != nil && (!half || f.folder.rng.IntN(2) == 0) {
		return failed
	}
	f.size = size
	for i, p := range f.pages {
		if i*pageSize >= size {
			f.touchLocked(i)
			delete(f.pages, i)
		} else if i == size/pageSize {
			f.touchLocked(i)
			clear(p[size%pageSize:])
		}
	}
	return failed
}

func (f *memFile) stat() (size, allocated int64, err error) {
	f.folder.mu.Lock()
	defer f.folder.mu.Unlock()
	if f.folder.dead {
		return 0, 0, errDead
	}
	return f.size, int64(len(f.pages)) * pageSize, nil
}

func (f *memFile) close() error { return nil }
