package main

import (
	"errors"
	"os"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	durabilityCluster = "cluster"
	durabilityNode    = "node"
)

// checkDurability says whether the volume can be served as it is to be: never as
// something that promises less.
func (c *volumeConfig) checkDurability() error {
	switch c.Durability {
	case "", durabilityCluster:
		c.CommitDelay = 0
	case durabilityNode:
		if c.Epoch == 0 {
			return storage.Errorf(storage.Invalid, "durability node: the volume is not one of a single node")
		}
		if c.CommitDelay <= 0 {
			return storage.Errorf(storage.Invalid, "durability node: a commit delay of %v", c.CommitDelay)
		}
	default:
		return storage.Errorf(storage.Unsupported, "durability %q: this mounter knows %s and %s", c.Durability, durabilityCluster, durabilityNode)
	}
	return nil
}

// flushNames brings the names in folders to the disk. One that this process may not
// read was not made by it.
func flushNames(folders ...string) error {
	for _, dir := range folders {
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
