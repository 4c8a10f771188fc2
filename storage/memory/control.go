package memory

import (
	"github.com/holdfast-csi/holdfast/storage"
)

// control is the state of the control path.
type control struct {
	buckets map[storage.BucketName]*bucket
	users   map[string]*user
	records map[storage.VolumeID]record
	// reports of nodes, in the store's form.
	reports map[string][]byte
	// revision counts the writes of records: the condition of an update.
	revision uint64
	// keys counts the key pairs made, so that none is made twice.
	keys  uint64
	space storage.Space
	// rules by which content would be placed, and the servers for it.
	rules    map[root]storage.Placement
	topology storage.Topology
}

// defaultSpace is what a new store says of itself: enough for any test.
var defaultSpace = storage.Space{Total: 1 << 40, Free: 1 << 40}

func newControl() control {
	return control{
		buckets: map[storage.BucketName]*bucket{},
		users:   map[string]*user{},
		records: map[storage.VolumeID]record{},
		reports: map[string][]byte{},
		space:   defaultSpace,

		rules: map[root]storage.Placement{}, topology: defaultTopology(),
	}
}
