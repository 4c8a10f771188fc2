package seaweed

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// recordsDir holds one entry per volume, its record as JSON in the entry's own
// content. Whoever can read it can read the volume's keys: the filer's gRPC is
// for trusted processes alone.
const recordsDir = "/etc/holdfast/volumes"

var (
	_ storage.Records  = (*Client)(nil)
	_ storage.Capacity = (*Client)(nil)
)

// GetRecord implements storage.Records.
func (c *Client) GetRecord(ctx context.Context, id storage.VolumeID) (storage.Record, error) {
	e, err := c.entry(ctx, recordsDir, string(id))
	if err != nil {
		return storage.Record{}, fmt.Errorf("record of volume %q: %w", id, err)
	}
	return parseRecord(e)
}

func parseRecord(e storage.Entry) (storage.Record, error) {
	r, err := storage.ParseRecord(storage.VolumeID(e.Name), e.Inline)
	if err != nil {
		return storage.Record{}, err
	}
	r.Origin = e
	return r, nil
}

// ListRecords implements storage.Records.
func (c *Client) ListRecords(ctx context.Context, after storage.VolumeID, limit int) ([]storage.Record, error) {
	entries, err := c.list(ctx, recordsDir, string(after), limit)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	records := make([]storage.Record, 0, len(entries))
	for _, e := range entries {
		r, err := parseRecord(e)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// CreateRecord implements storage.Records.
func (c *Client) CreateRecord(ctx context.Context, r storage.Record) (storage.Record, error) {
	body, err := storage.EncodeRecord(r)
	if err != nil {
		return r, err
	}
	r.Version = storage.RecordVersion
	now := time.Now()
	e, err := c.create(ctx, recordsDir, toWire(storage.Entry{
		Name: string(r.ID), Mode: 0o600, Size: int64(len(body)), Inline: body,
		Mtime: now, Btime: now, MIME: "application/json", Native: true,
	}))
	if err != nil {
		return r, fmt.Errorf("record of volume %q: %w", r.ID, err)
	}
	r.Origin = e
	return r, nil
}

// UpdateRecord implements storage.Records.
func (c *Client) UpdateRecord(ctx context.Context, r storage.Record) (storage.Record, error) {
	e, ok := r.Origin.(storage.Entry)
	if !ok {
		return r, storage.Errorf(storage.Invalid, "record of volume %q: update without having read it", r.ID)
	}
	body, err := storage.EncodeRecord(r)
	if err != nil {
		return r, err
	}
	r.Version = storage.RecordVersion
	e.Inline, e.Size, e.Mtime = body, int64(len(body)), time.Now()
	done, err := c.update(ctx, recordsDir, e)
	if err != nil {
		return r, fmt.Errorf("record of volume %q: %w", r.ID, err)
	}
	r.Origin = done
	return r, nil
}

// DeleteRecord implements storage.Records.
func (c *Client) DeleteRecord(ctx context.Context, id storage.VolumeID) error {
	if err := c.remove(ctx, recordsDir, string(id), true); err != nil {
		return fmt.Errorf("record of volume %q: %w", id, err)
	}
	return nil
}
