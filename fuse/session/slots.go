package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the pool of slots. Requests are read into it, and stay in it until
// they are answered; the keeper holds the same memfd, so what a killed process had
// read and not answered its successor finds.
//
// One pool serves all sessions of a process: a read must offer room for the
// largest WRITE, so a pool for each session would cost a node with a hundred
// volumes a hundred times a megabyte before it does anything. A session that
// waits holds no slot.
//
// The risk accepted: nothing pins the pages. When one was swapped out, and the
// process is killed while the kernel fetches it back, that request ends with EIO,
// as it does in any FUSE server.

const (
	// DefaultLarge is how many large writes may be in handlers: twice
	// MaxBackground, all that the kernel sends in the background and as many
	// writers who wait. A session may have half. Beside these there is one large
	// slot for each reader at work.
	DefaultLarge = 2 * MaxBackground

	// DefaultAnswers is how many large answers may be in the making: a READ holds
	// its megabyte while it waits for the network, and the kernel sends as many as
	// there are readers. A session may have half.
	DefaultAnswers = 96
)

// idleSlots keep their memory when nobody uses them: about 7 MiB.
var idleSlots = [numSizes]int{small: 256, middle: 16, large: 4}

// SlotOptions of a pool. The zero value works.
type SlotOptions struct {
	// Large is how many large writes may be in handlers at a time; 0 means
	// DefaultLarge, which is also the most.
	Large int
	// Answers is how many large answers may be in the making at a time; 0 means
	// DefaultAnswers.
	Answers int
}

// Slots is a pool of request slots, to be shared by all sessions of a process. It
// bounds how many large writes are in memory at a time.
type Slots struct {
	// Fixed after OpenSlots.
	pools *Pools // nil when it is not shared
	id    identity
	mem   []byte
	geo   geometry
	room  chan struct{} // one token for each large write in a handler
	free  chan struct{} // one token for each large slot that nobody has
	// answers has one token for each large answer in the making.
	answers chan struct{}

	mu struct {
		sync.Mutex
		// INVARIANT: a slot is in idle, in cold, in left, or held by a session;
		// in idle and cold its length is 0.
		idle [numSizes][]int // their memory is there
		cold [numSizes][]int // it may not be
		left map[uint64][]int
	}
}

// identity tells two memfds apart.
type identity struct{ dev, ino uint64 }

// NewSlots makes a pool that dies with the process.
func NewSlots(opts SlotOptions) (*Slots, error) {
	fd, err := unix.MemfdCreate("holdfast-slots", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("slots: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	return OpenSlots(fd, opts)
}

// OpenSlots maps a memfd, which may be empty, or one that another process has
// served sessions with; that process must be gone. Unsupported when another
// version wrote it, Corrupt when it is damaged; it is left as it is then. The
// caller keeps fd.
func OpenSlots(fd int, opts SlotOptions) (*Slots, error) {
	id, err := identify(fd)
	if err != nil {
		return nil, err
	}
	geo, ok, err := readGeometry(fd)
	if err != nil {
		return nil, err
	}
	if !ok {
		geo = ourGeometry
		if err := writeGeometry(fd, geo); err != nil {
			return nil, err
		}
	}
	mem, err := unix.Mmap(fd, 0, geo.size(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the slots: %w", err)
	}
	limit := opts.Large
	if limit <= 0 || limit > DefaultLarge {
		limit = DefaultLarge
	}
	p := &Slots{id: id, mem: mem, geo: geo, room: make(chan struct{}, limit), free: make(chan struct{}, geo[large].count)}
	p.answers = make(chan struct{}, DefaultAnswers)
	if opts.Answers > 0 {
		p.answers = make(chan struct{}, opts.Answers)
	}
	p.mu.left = make(map[uint64][]int)
	if err := p.scan(fd); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return p, nil
}

func identify(fd int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return identity{}, fmt.Errorf("slots: %w", err)
	}
	return identity{uint64(st.Dev), st.Ino}, nil
}

// scan sorts the slots. Only those with memory are looked at: a look would make
// the others' memory.
func (p *Slots) scan(fd int) error {
	parts, err := extents(fd)
	if err != nil {
		return err
	}
	var used [numSizes]int
	for i := range p.geo.slots() {
		sl := p.slot(i)
		off, _ := p.geo.place(i)
		for len(parts) > 0 && parts[0].to <= int64(off) {
			parts = parts[1:]
		}
		if len(parts) > 0 && parts[0].from < int64(off+len(sl.mem)) {
			if parts[0].from <= int64(off) && sl.length() != 0 {
				key := sl.owner()
				p.mu.left[key] = append(p.mu.left[key], i)
				continue
			}
			if used[sl.class]++; used[sl.class] > idleSlots[sl.class] {
				_ = sl.remove() // memory only
			}
		}
		p.mu.cold[sl.class] = append(p.mu.cold[sl.class], i)
		if sl.class == large {
			p.free <- struct{}{}
		}
	}
	for class := range p.mu.cold {
		slices.Reverse(p.mu.cold[class]) // the first ones are used first, by every process
	}
	return nil
}

// extents returns where a memfd has memory.
func extents(fd int) (all []span, err error) {
	for at := int64(0); ; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("slots: %w", err)
		}
		if at, err = unix.Seek(fd, from, unix.SEEK_HOLE); err != nil {
			return nil, fmt.Errorf("slots: %w", err)
		}
		all = append(all, span{from, at})
	}
}

// slot returns slot i.
func (p *Slots) slot(i int) slot {
	off, class := p.geo.place(i)
	end := off + p.geo[class].bytes
	return slot{index: i, class: class, mem: p.mem[off:end:end], key: (*uint64)(unsafe.Pointer(&p.mem[pageSize+i*keySize]))}
}

// take hands out a slot for a session's next request; false when there is none of
// that size. It waits for nothing. For large ones the caller has a token of free.
func (p *Slots) take(class int, key uint64) (slot, bool, error) {
	p.mu.Lock()
	from := &p.mu.idle[class]
	warm := len(*from) > 0
	if !warm {
		from = &p.mu.cold[class]
	}
	n := len(*from)
	if n == 0 {
		p.mu.Unlock()
		return slot{}, false, nil
	}
	i := (*from)[n-1]
	*from = (*from)[:n-1]
	p.mu.Unlock()
	sl := p.slot(i)
	if !warm {
		if err := sl.populate(); err != nil {
			p.mu.Lock()
			p.mu.cold[class] = append(p.mu.cold[class], i)
			p.mu.Unlock()
			return slot{}, false, err
		}
	}
	sl.own(key)
	return sl, true, nil
}

// takeLarge hands out a slot that the kernel may be asked to read into. It waits
// while every one is in use.
func (p *Slots) takeLarge(ctx context.Context, key uint64) (slot, error) {
	select {
	case <-p.free:
	case <-ctx.Done():
		return slot{}, context.Cause(ctx)
	}
	sl, ok, err := p.take(large, key)
	if err == nil && !ok {
		panic("slots: a token without a slot")
	}
	if err != nil {
		p.free <- struct{}{}
	}
	return sl, err
}

// give frees a slot: its request was answered, or wants no answer. From the first
// store on a successor does not see it. A cold one is not idle: the next read into
// it would meet pages that are not mapped, and a SIGKILL there is an EIO.
func (p *Slots) give(sl slot) {
	sl.setLength(0)
	p.mu.Lock()
	if !sl.cold && len(p.mu.idle[sl.class]) < idleSlots[sl.class] {
		p.mu.idle[sl.class] = append(p.mu.idle[sl.class], sl.index)
		p.mu.Unlock()
	} else {
		p.mu.Unlock()
		_ = sl.remove() // memory only
		p.mu.Lock()
		p.mu.cold[sl.class] = append(p.mu.cold[sl.class], sl.index)
		p.mu.Unlock()
	}
	if sl.class == large {
		p.free <- struct{}{}
	}
}

// leave keeps the request in a slot for a successor.
func (p *Slots) leave(sl slot) {
	key := sl.owner()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.left[key] = append(p.mu.left[key], sl.index)
}

// claim hands out what was left of a session, in the order of its uniques.
func (p *Slots) claim(key uint64) []slot {
	p.mu.Lock()
	indices := p.mu.left[key]
	delete(p.mu.left, key)
	p.mu.Unlock()
	all := make([]slot, 0, len(indices))
	for _, i := range indices {
		sl := p.slot(i)
		sl.cold = true // another process has touched it
		all = append(all, sl)
	}
	slices.SortStableFunc(all, func(a, b slot) int {
		switch x, y := a.unique()&^uniqueAgain, b.unique()&^uniqueAgain; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return all
}

// Forget drops what was left of a session that has ended.
func (p *Slots) Forget(name string) {
	for _, sl := range p.claim(keyOf(name)) {
		p.give(sl)
	}
}

// Close lets go of the memory, once every session that uses it is closed.
func (p *Slots) Close() error {
	if p.pools != nil && !p.pools.leave(p) {
		return nil
	}
	if err := unix.Munmap(p.mem); err != nil {
		return fmt.Errorf("unmap the slots: %w", err)
	}
	return nil
}
