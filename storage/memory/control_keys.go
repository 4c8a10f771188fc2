package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// AddKeys implements storage.Access.
func (s *Store) AddKeys(ctx context.Context, name string) (storage.Keys, error) {
	if err := ctx.Err(); err != nil {
		return storage.Keys{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control.users[name] == nil {
		return storage.Keys{}, storage.Errorf(storage.NotFound, "user %s: not found", name)
	}
	return s.control.newKeys(name), nil
}

// Check implements storage.Access.
func (s *Store) Check(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch u := s.control.users[name]; {
	case u == nil:
		return "the user is gone", nil
	case u.bucket != b || u.prefix != prefix:
		return "the user may do something else", nil
	}
	return "", nil
}

// Restore implements storage.Access.
func (s *Store) Restore(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.control.users[name]
	if u == nil {
		u = &user{secrets: map[string]string{}}
		s.control.users[name] = u
	}
	u.bucket, u.prefix = b, prefix
	return nil
}

// ListKeys implements storage.Access.
func (s *Store) ListKeys(ctx context.Context, name string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.control.users[name]
	if u == nil {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(u.secrets)), nil
}

// EndKeys implements storage.Access.
func (s *Store) EndKeys(ctx context.Context, name string, access []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.control.users[name]; u != nil {
		for _, k := range access {
			delete(u.secrets, k)
		}
	}
	return nil
}
