package seaweed

import (
	"context"
	"net/http"

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

// PutRules writes what stands for the filer's rules, and RawRules reads it.
func (c *Client) PutRules(ctx context.Context, body []byte) error {
	e, err := c.entry(ctx, rulesDir, rulesName)
	if storage.Is(err, storage.NotFound) {
		_, err = c.create(ctx, rulesDir, toWire(storage.Entry{Name: rulesName, Mode: 0o644, Size: int64(len(body)), Inline: body}))
		return err
	}
	if err == nil {
		e.Inline, e.Size = body, int64(len(body))
		_, err = c.update(ctx, rulesDir, e)
	}
	return err
}

// RawRules reads what stands for the filer's rules.
func (c *Client) RawRules(ctx context.Context) ([]byte, error) {
	e, err := c.entry(ctx, rulesDir, rulesName)
	return e.Inline, err
}

// Holders are the servers that have a chunk, as the master says now.
func (c *Client) Holders(ctx context.Context, id storage.ChunkID) ([]string, error) {
	volume, err := volumeOf(id)
	if err != nil {
		return nil, err
	}
	found, err := c.lookupVolumes(ctx, []string{volume})
	var at []string
	for _, h := range found[volume] {
		at = append(at, h.http)
	}
	return at, err
}

// PutFile writes a small file anywhere on the filer, and Names lists a folder.
func (c *Client) PutFile(ctx context.Context, dir, name string) error {
	_, err := c.create(ctx, dir, toWire(storage.Entry{Name: name, Mode: 0o600, Size: 1, Inline: []byte("x"), Native: true}))
	return err
}

// Names lists a folder, which may be missing.
func (c *Client) Names(ctx context.Context, dir string) (names []string, err error) {
	err = c.eachEntry(ctx, dir, func(e storage.Entry) error {
		names = append(names, e.Name)
		return nil
	})
	return names, err
}

// OrphansDir is where the files without a name lie.
const OrphansDir = orphansDir

// Freed reports whether a chunk is deleted, though it may be served still to who reads
// what somebody has removed.
func (c *Client) Freed(ctx context.Context, id storage.ChunkID) (bool, error) {
	volume, err := volumeOf(id)
	if err != nil {
		return false, err
	}
	err = c.ask(ctx, volume, func(at holder) error {
		return c.get(ctx, c.url(at, string(id)), 0, 1, func(*http.Response) error { return nil })
	})
	if storage.Is(err, storage.NotFound) {
		return true, nil
	}
	return false, err
}

// InlinePolicies reads the file of inline policies, or writes it when body is not "".
func (c *Client) InlinePolicies(ctx context.Context, body string) (string, error) {
	if body != "" {
		return body, c.changeFile(ctx, inlineDir, inlineName, func([]byte) ([]byte, error) { return []byte(body), nil })
	}
	e, err := c.entry(ctx, inlineDir, inlineName+userSuffix)
	return string(e.Inline), err
}
