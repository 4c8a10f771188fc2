package memory

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// root is what a rule is for.
type root struct {
	bucket storage.BucketName
	folder storage.Path
}

var _ storage.Placer = (*Store)(nil)

// defaultTopology is that of the bundled cluster.
func defaultTopology() storage.Topology {
	server := func(name string) storage.Server {
		return storage.Server{Name: name, Rack: "DefaultRack", DataCenter: "DefaultDataCenter", Room: map[string]int64{storage.DefaultDisk: 100}}
	}
	return storage.Topology{server("volume1"), server("volume2")}
}

// Topology implements storage.Placer.
func (s *Store) Topology(ctx context.Context) (storage.Topology, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.topology, nil
}

// SetTopology sets what Topology returns.
func (s *Store) SetTopology(t storage.Topology) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control.topology = t
}

// Placed implements storage.Placer.
func (s *Store) Placed(ctx context.Context, b storage.BucketName, folder storage.Path) (storage.Placement, bool, error) {
	if err := ctx.Err(); err != nil {
		return storage.Placement{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, found := s.control.rules[root{b, folder}]
	return p, found, nil
}

// Place implements storage.Placer.
func (s *Store) Place(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, found := s.control.rules[root{b, folder}]; found && have != p {
		return storage.Errorf(storage.Exists, "folder %q of bucket %s has another rule (%s)", folder, b, have)
	}
	s.control.rules[root{b, folder}] = p
	return nil
}

// Unplace implements storage.Placer.
func (s *Store) Unplace(ctx context.Context, b storage.BucketName, folder storage.Path, p storage.Placement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control.rules[root{b, folder}] == p {
		delete(s.control.rules, root{b, folder})
	}
	return nil
}

// Rules counts the rules, for tests of what is left behind.
func (s *Store) Rules() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.control.rules)
}
