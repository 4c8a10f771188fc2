package volumes

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage"
)

// Record is one mount that a person asked for, kept so that `up` can make it
// again. One file each: two commands at once never write the same.
type Record struct {
	VolumeID string             `json:"volume_id"`
	Name     string             `json:"name"`
	Access   storage.AccessMode `json:"access"`
	Target   string             `json:"target"`
	// Folder is what the target was before.
	Folder folder `json:"folder"`
	// Context is the volume's, as the driver gave it.
	Context map[string]string `json:"context,omitempty"`
}

// Records are all mounts of a state, by target.
type Records []Record

// ReadRecords returns what is recorded, in the order of the targets.
func ReadRecords(dir state.Dir) (Records, error) {
	entries, err := os.ReadDir(dir.Mounts())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records Records
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		path := filepath.Join(dir.Mounts(), e.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // forgotten since the listing
		}
		if err != nil {
			return nil, err
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("record of a mount %s: %w", path, err)
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Target, b.Target) })
	return records, nil
}

// At returns the record of the mount at target.
func (rs Records) At(target string) (Record, bool) {
	i := slices.IndexFunc(rs, func(r Record) bool { return r.Target == target })
	if i < 0 {
		return Record{}, false
	}
	return rs[i], true
}

// targets are where a volume is mounted.
func (rs Records) targets(volumeID string) []string {
	var targets []string
	for _, r := range rs {
		if r.VolumeID == volumeID {
			targets = append(targets, r.Target)
		}
	}
	return targets
}

func (r Record) file(dir state.Dir) string {
	return filepath.Join(dir.Mounts(), fmt.Sprintf("%x", sha256.Sum256([]byte(r.Target)))[:24]+".json")
}

func (r Record) save(dir state.Dir) error { return state.WriteJSON(r.file(dir), r, 0o600) }

func (r Record) forget(dir state.Dir) error {
	if err := os.Remove(r.file(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveTargets takes away the folders that were made for the mounts, where they
// are empty.
func (rs Records) RemoveTargets() error {
	var errs []error
	for _, r := range rs {
		if !r.Folder.Made {
			continue
		}
		errs = append(errs, remove(r.Target))
	}
	return errors.Join(errs...)
}
