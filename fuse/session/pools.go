package session

import "sync"

// Pools are the slots of a process, each memfd mapped once, however often it comes.
// There is one, unless the keeper was replaced or another version left its own.
type Pools struct {
	opts SlotOptions

	mu   sync.Mutex
	open map[identity]*shared
}

type shared struct {
	slots *Slots
	users int
}

// NewPools makes a set without any.
func NewPools(opts SlotOptions) *Pools {
	return &Pools{opts: opts, open: make(map[identity]*shared)}
}

// Open is OpenSlots, or what it has returned before for the same memory. Each
// Open wants a Close of the Slots.
func (ps *Pools) Open(fd int) (*Slots, error) {
	id, err := identify(fd)
	if err != nil {
		return nil, err
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if s := ps.open[id]; s != nil {
		s.users++
		return s.slots, nil
	}
	p, err := OpenSlots(fd, ps.opts)
	if err != nil {
		return nil, err
	}
	p.pools = ps
	ps.open[id] = &shared{slots: p, users: 1}
	return p, nil
}

// Forget drops what was left of a session that has ended.
func (ps *Pools) Forget(name string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, s := range ps.open {
		s.slots.Forget(name)
	}
}

// leave reports whether the last user has gone.
func (ps *Pools) leave(p *Slots) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s := ps.open[p.id]
	if s.users--; s.users > 0 {
		return false
	}
	delete(ps.open, p.id)
	return true
}
