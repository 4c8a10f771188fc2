package seaweed

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// PutRecord writes what stands for a record, and RawRecord reads it.
func (c *Client) PutRecord(ctx context.Context, id storage.VolumeID, body []byte) error {
	_, err := c.create(ctx, recordsDir, toWire(storage.Entry{Name: string(id), Mode: 0o600, Size: int64(len(body)), Inline: body, Native: true}))
	return err
}

// RawRecord reads what stands for a record.
func (c *Client) RawRecord(ctx context.Context, id storage.VolumeID) ([]byte, error) {
	e, err := c.entry(ctx, recordsDir, string(id))
	return e.Inline, err
}
