package memory

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

var _ storage.Capacity = (*Store)(nil)

// Space implements storage.Capacity.
func (s *Store) Space(ctx context.Context, p storage.Placement) (storage.Space, error) {
	if err := ctx.Err(); err != nil {
		return storage.Space{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	space := s.control.space
	used := space.Total - space.Free
	space.Free /= max(int64(p.Copies()), 1)
	space.Total = used + space.Free
	return space, nil
}

// SetSpace sets what Space returns of content that is stored once.
func (s *Store) SetSpace(space storage.Space) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control.space = space
}
