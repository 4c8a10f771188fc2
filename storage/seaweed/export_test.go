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

// UserFile reads what is kept of a user.
func (c *Client) UserFile(ctx context.Context, name string) (string, error) {
	e, err := c.entry(ctx, usersDir, name+userSuffix)
	return string(e.Inline), err
}

// PutUserFile writes it.
func (c *Client) PutUserFile(ctx context.Context, name, body string) error {
	return c.changeFile(ctx, usersDir, name, func([]byte) ([]byte, error) { return []byte(body), nil })
}
