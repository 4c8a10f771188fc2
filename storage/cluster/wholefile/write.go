// Package wholefile replaces files as a whole: readers see the old one or the new
// one, after a power cut too.
//
// Owns: how that is done. Never: what stands in the file, and what it is called.
package wholefile

import (
	"io/fs"
	"os"
	"path/filepath"
)

// TempPrefix begins the name of a file that is being written.
const TempPrefix = ".new-"

// Owner is a user with the group of its files.
type Owner struct{ UID, GID uint32 }

// Write writes a file whole or not at all, flushed, for owner where given. It is
// nobody else's from its first byte on.
func Write(path string, content []byte, mode fs.FileMode, owner *Owner) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil && owner != nil {
		err = f.Chown(int(owner.UID), int(owner.GID))
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
