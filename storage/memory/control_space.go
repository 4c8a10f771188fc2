package memory

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

var _ storage.Capacity = (*Store)(nil)

// Space implements storage.Capacity.
func (s *Store) Space(ctx context.Context) (storage.Space, error) {
	if err := ctx.Err(); err != nil {
		return storage.Space{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.space, nil
}

// SetSpace sets what Space returns.
func (s *Store) SetSpace(space storage.Space) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control.space = space
}
