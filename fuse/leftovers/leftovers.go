// Package leftovers knows what is kept aside on a node of what could not be committed.
//
// Owns: the names by which it lies in a volume's folder, and their count.
//
// Never: what is kept, and why (fuse).
package leftovers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Dir is where it lies, in the volume's folder.
const Dir = "leftovers"

// What stands beside a file there: its description, and what of it could not be read.
const (
	Described = ".json"
	Unread    = ".unread"
)

// Count counts the files of which something is kept in a volume's folder. One that
// could not be read to its end counts what it has seen.
func Count(folder string) (kept int, err error) {
	entries, err := os.ReadDir(filepath.Join(folder, Dir))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Described) && !strings.HasSuffix(e.Name(), Unread) {
			kept++
		}
	}
	return kept, err
}
