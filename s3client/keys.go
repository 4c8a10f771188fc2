package s3client

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file gives a user several keys, so that one can be replaced without a
// moment in which none works. SeaweedFS 4.48 has no limit of keys per user.

// AddKeys implements storage.Access.
func (c *Client) AddKeys(ctx context.Context, user string) (storage.Keys, error) {
	if err := checkUser(user); err != nil {
		return storage.Keys{}, err
	}
	return c.createKey(ctx, user)
}

// ListKeys implements storage.Access.
func (c *Client) ListKeys(ctx context.Context, user string) ([]string, error) {
	if err := checkUser(user); err != nil {
		return nil, err
	}
	return c.listKeys(ctx, user)
}

// EndKeys implements storage.Access.
func (c *Client) EndKeys(ctx context.Context, user string, access []string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	return c.deleteKeys(ctx, user, access)
}
