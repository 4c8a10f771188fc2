package volumes

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Description is a Volume with what only its own calls tell.
type Description struct {
	Volume
	// Nodes that use it now, and their leases.
	Nodes  []string `json:"nodes"`
	Leases []Lease  `json:"leases"`
	// Keys are those that open its bucket.
	Keys Keys `json:"keys"`
	// Used are the bytes in it, where a mount here can tell.
	Used *int64 `json:"used,omitempty"`
}

// Lease is a node's word that it uses a volume. The times are by its clock.
type Lease struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since,omitzero"`
	// Until is when it ends if it is not renewed, as it is all the time.
	Until time.Time `json:"until,omitzero"`
	Path  string    `json:"path,omitempty"`
}

// Describe tells everything about one volume.
func (c *Client) Describe(ctx context.Context, name string) (Description, error) {
	v, err := c.Find(ctx, name)
	if err != nil {
		return Description{}, err
	}
	d := Description{Volume: v, Nodes: []string{}, Leases: []Lease{}}
	resp, err := c.controller.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: v.ID})
	if err != nil && status.Code(err) != codes.Unimplemented {
		return Description{}, c.explain(err)
	}
	if d.Keys, err = c.Keys(ctx, v); err != nil {
		return Description{}, err
	}
	d.Nodes = append(d.Nodes, resp.GetStatus().GetPublishedNodeIds()...)
	if text := resp.GetVolume().GetVolumeContext()[contextLeases]; text != "" {
		if err := json.Unmarshal([]byte(text), &d.Leases); err != nil {
			return Description{}, fmt.Errorf("leases of the volume: %w", err)
		}
	}
	if len(v.Mounts) == 0 {
		return d, nil
	}
	stats, err := c.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.ID, VolumePath: v.Mounts[0]})
	if err != nil {
		return Description{}, fmt.Errorf("measure the mount at %s: %w", v.Mounts[0], c.explain(err))
	}
	for _, u := range stats.GetUsage() {
		if u.GetUnit() == csi.VolumeUsage_BYTES {
			used := u.GetUsed()
			d.Used = &used
		}
	}
	return d, nil
}
