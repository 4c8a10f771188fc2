package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

var _ storage.Reports = (*Store)(nil)

// PutReport implements storage.Reports.
func (s *Store) PutReport(ctx context.Context, r storage.Report) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	body, err := storage.EncodeReport(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control.reports[r.Node] = body
	return nil
}

// ListReports implements storage.Reports.
func (s *Store) ListReports(ctx context.Context) ([]storage.Report, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []storage.Report
	for _, node := range slices.Sorted(maps.Keys(s.control.reports)) {
		r, err := storage.ParseReport(s.control.reports[node])
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// DeleteReport implements storage.Reports.
func (s *Store) DeleteReport(ctx context.Context, node string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.control.reports, node)
	return nil
}
