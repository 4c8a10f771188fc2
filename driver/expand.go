package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// A volume grows by a number in its record. Mounts learn it from there, so no
// node has to do anything; a node answers NodeExpandVolume all the same, for
// callers that ask.

// ControllerExpandVolume implements csi.ControllerServer. A volume that is large
// enough stays as it is: CSI knows no shrinking.
func (c *Controller) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	id, err := checkVolumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	asked := req.GetCapacityRange()
	if asked.GetRequiredBytes() == 0 && asked.GetLimitBytes() == 0 {
		return nil, storage.Errorf(storage.Invalid, "the capacity range is missing")
	}
	if err := checkRange(asked); err != nil {
		return nil, err
	}
	if vc := req.GetVolumeCapability(); vc != nil {
		if err := checkCapability(vc); err != nil {
			return nil, err
		}
	}
	var size int64
	err = c.pending.do(ctx, id, "ControllerExpandVolume", func() error {
		size, err = c.expand(ctx, id, asked)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: false}, nil
}

func (c *Controller) expand(ctx context.Context, id storage.VolumeID, asked *csi.CapacityRange) (int64, error) {
	r, err := c.records.GetRecord(ctx, id)
	if err == nil && r.Phase == storage.Ready && fits(r.Capacity, asked) {
		return r.Capacity, nil
	}
	if err != nil {
		return 0, err
	}
	r, err = updateRecord(ctx, c.records, id, func(r *storage.Record) error {
		if r.Phase != storage.Ready {
			return storage.Errorf(storage.Busy, "volume %s is not ready: %s", id, r.Phase)
		}
		r.Capacity = max(r.Capacity, asked.GetRequiredBytes())
		if !fits(r.Capacity, asked) {
			return storage.Errorf(storage.OutOfRange, "volume %s has %d bytes: it cannot shrink to %d", id, r.Capacity, asked.GetLimitBytes())
		}
		return nil
	})
	return r.Capacity, err
}
