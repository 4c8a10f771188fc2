package driver

import (
	"fmt"
	"math"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the volume_mount_group, a pod's fsGroup: the kubelet hands it over
// instead of changing the owner of every file, which would go through the whole
// bucket. A volume is mounted once on a node, so it has one group there.

// groupOf returns the group that a capability names, nil when it names none.
func groupOf(c *csi.VolumeCapability) (*uint32, error) {
	given := c.GetMount().GetVolumeMountGroup()
	if given == "" {
		return nil, nil
	}
	gid, err := strconv.ParseUint(given, 10, 32)
	if err != nil || gid == math.MaxUint32 {
		return nil, storage.Errorf(storage.Invalid, "volume_mount_group %q: must be the number of a group, 0 to %d", given, uint32(math.MaxUint32-1))
	}
	group := uint32(gid)
	return &group, nil
}

func sameGroup(a, b *uint32) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func groupName(group *uint32) string {
	if group == nil {
		return "none"
	}
	return fmt.Sprint(*group)
}
