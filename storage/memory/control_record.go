package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// record is a stored record and the write that it is from.
type record struct {
	body     []byte
	revision uint64
}

var _ storage.Records = (*Store)(nil)

// GetRecord implements storage.Records.
func (s *Store) GetRecord(ctx context.Context, id storage.VolumeID) (storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return storage.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.control.records[id]
	if !ok {
		return storage.Record{}, storage.Errorf(storage.NotFound, "record of volume %s: not found", id)
	}
	return have.read(id)
}

// ListRecords implements storage.Records.
func (s *Store) ListRecords(ctx context.Context, after storage.VolumeID, limit int) ([]storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []storage.Record
	for _, id := range slices.Sorted(maps.Keys(s.control.records)) {
		if len(list) >= limit {
			break
		}
		if id > after {
			r, err := s.control.records[id].read(id)
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	return list, nil
}

// CreateRecord implements storage.Records.
func (s *Store) CreateRecord(ctx context.Context, r storage.Record) (storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return storage.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.control.records[r.ID]; ok {
		return storage.Record{}, storage.Errorf(storage.Exists, "record of volume %s: already exists", r.ID)
	}
	return s.control.write(r)
}

// UpdateRecord implements storage.Records.
func (s *Store) UpdateRecord(ctx context.Context, r storage.Record) (storage.Record, error) {
	if err := ctx.Err(); err != nil {
		return storage.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.control.records[r.ID]
	if !ok {
		return storage.Record{}, storage.Errorf(storage.NotFound, "record of volume %s: not found", r.ID)
	}
	if seen, ok := r.Origin.(uint64); !ok || seen != have.revision {
		return storage.Record{}, storage.Errorf(storage.Changed, "record of volume %s: changed meanwhile", r.ID)
	}
	return s.control.write(r)
}

// DeleteRecord implements storage.Records.
func (s *Store) DeleteRecord(ctx context.Context, id storage.VolumeID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.control.records, id)
	return nil
}

// write stores r as the real store does, so that nothing is shared with the
// caller.
func (c *control) write(r storage.Record) (storage.Record, error) {
	body, err := storage.EncodeRecord(r)
	if err != nil {
		return storage.Record{}, err
	}
	c.revision++
	have := record{body: body, revision: c.revision}
	c.records[r.ID] = have
	return have.read(r.ID)
}

func (r record) read(id storage.VolumeID) (storage.Record, error) {
	v, err := storage.ParseRecord(id, r.body)
	if err != nil {
		return storage.Record{}, err
	}
	v.Origin = r.revision
	return v, nil
}
