package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// NodeExpandVolume implements csi.NodeServer. The mount follows the record, so
// this only checks that both are there.
func (n *Node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if vc := req.GetVolumeCapability(); vc != nil {
		if err := checkCapability(vc); err != nil {
			return nil, err
		}
	}
	if err := checkRange(req.GetCapacityRange()); err != nil {
		return nil, err
	}
	if _, err := n.mountedAt(ctx, req.GetVolumeId(), req.GetVolumePath()); err != nil {
		return nil, err
	}
	r, err := n.records.GetRecord(ctx, storage.VolumeID(req.GetVolumeId()))
	if err != nil {
		return nil, err
	}
	if required := req.GetCapacityRange().GetRequiredBytes(); required > r.Capacity {
		return nil, storage.Errorf(storage.OutOfRange, "volume %s has %d bytes, not %d: expand it at the controller first", r.ID, r.Capacity, required)
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: r.Capacity}, nil
}
