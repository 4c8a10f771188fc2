package seaweed

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// meter implements storage.Meter: a bucket is a collection, which the master
// counts; the capacity stands in the volume's record.
type meter struct {
	*Client
	bucket storage.BucketName
	id     storage.VolumeID
}

var _ storage.Meter = (*meter)(nil)

// Usage implements storage.Meter. The master learns of what the volume servers
// hold with their heartbeats, every few seconds.
func (m *meter) Usage(ctx context.Context) (storage.Usage, error) {
	r, err := m.GetRecord(ctx, m.id)
	if err != nil {
		return storage.Usage{}, err
	}
	s, err := m.statistics(ctx, string(m.bucket), storage.Placement{})
	if err != nil {
		return storage.Usage{}, fmt.Errorf("measure bucket %s: %w", m.bucket, err)
	}
	return storage.Usage{Used: int64(s.GetLogicalUsedSize()), Capacity: r.Capacity}, nil
}

// Size implements storage.Meter.
func (m *meter) Size(ctx context.Context) (int64, error) {
	r, err := m.GetRecord(ctx, m.id)
	return r.Capacity, err
}

// Space implements storage.Capacity.
func (c *Client) Space(ctx context.Context, p storage.Placement) (storage.Space, error) {
	s, err := c.statistics(ctx, "", p)
	if err != nil {
		return storage.Space{}, fmt.Errorf("measure the cluster: %w", err)
	}
	total, used := int64(s.GetLogicalTotalSize()), int64(s.GetLogicalUsedSize())
	return storage.Space{Total: total, Free: max(total-used, 0)}, nil
}

// statistics counts one copy of what there is, and as room what can be stored as often
// as p has it.
func (c *Client) statistics(ctx context.Context, collection string, p storage.Placement) (*filerpb.StatisticsResponse, error) {
	var s *filerpb.StatisticsResponse
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.Statistics(ctx, &filerpb.StatisticsRequest{Collection: collection, Replication: p.Replication})
		s = r
		return classify(ctx, err)
	})
	return s, err
}

// Exceeds reports whether what lies in a bucket, or in a folder of it, is more than most
// bytes, as a mount counts them. It looks no further than it must.
func (c *Client) Exceeds(ctx context.Context, b storage.BucketName, folder storage.Path, most int64) (bool, error) {
	more, err := storage.Exceeds(ctx, c.Folder(b, folder, "").Files, most)
	if err != nil {
		return false, fmt.Errorf("count bucket %s: %w", b, err)
	}
	return more, nil
}
