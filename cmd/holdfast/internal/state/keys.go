package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// AdminUser is the name of the administrator's S3 user.
const AdminUser = "holdfast-admin"

// LoadKeys returns the administrator's keys, and makes them when there are none
// yet.
func (d Dir) LoadKeys(a Accounts) (storage.Keys, error) {
	keys, err := ReadKeys(d.AdminKeys())
	if errors.Is(err, fs.ErrNotExist) {
		keys = cluster.NewAdminKeys()
		err = WriteJSON(d.AdminKeys(), keys, 0o600)
	}
	if err != nil {
		return storage.Keys{}, fmt.Errorf("admin keys: %w", err)
	}
	// The controller reads them; root can anyway.
	if err := os.Lchown(d.AdminKeys(), a.Services.UID, a.Services.GID); err != nil {
		return storage.Keys{}, fmt.Errorf("admin keys: %w", err)
	}
	return keys, nil
}

// ReadKeys reads a file of keys.
func ReadKeys(path string) (storage.Keys, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return storage.Keys{}, err
	}
	var keys storage.Keys
	if err := json.Unmarshal(b, &keys); err != nil || keys.Access == "" || keys.Secret == "" {
		return storage.Keys{}, fmt.Errorf(`%s: want {"access": "…", "secret": "…"}`, path)
	}
	return keys, nil
}
