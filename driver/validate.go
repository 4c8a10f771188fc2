package driver

import (
	"context"
	"fmt"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// ValidateVolumeCapabilities implements csi.ControllerServer. What cannot be
// confirmed is answered with the reason, not with an error.
func (c *Controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() != "" && len(req.GetVolumeCapabilities()) == 0 {
		return nil, storage.Errorf(storage.Invalid, "the volume capabilities are missing")
	}
	r, err := c.get(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if reason := unconfirmed(r, req); reason != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: reason}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      req.GetVolumeContext(),
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
	}}, nil
}

// unconfirmed returns why the volume is not what req describes, or "".
func unconfirmed(r storage.Record, req *csi.ValidateVolumeCapabilitiesRequest) string {
	if r.Phase != storage.Ready {
		return fmt.Sprintf("volume %s is not ready: %s", r.ID, r.Phase)
	}
	for _, vc := range req.GetVolumeCapabilities() {
		if err := checkCapability(vc); err != nil {
			return err.Error()
		}
		if err := servesRecord(&r, vc.GetAccessMode().GetMode()); err != nil {
			return err.Error()
		}
	}
	if given := req.GetVolumeContext(); len(given) > 0 && !maps.Equal(given, toCSI(r).GetVolumeContext()) {
		return fmt.Sprintf("volume %s has another volume context", r.ID)
	}
	if len(req.GetParameters()) > 0 {
		s, err := parseParams(req.GetParameters())
		if err != nil {
			return err.Error()
		}
		if !maps.Equal(s.kept, r.Parameters) {
			return fmt.Sprintf("volume %s has other parameters", r.ID)
		}
	}
	return ""
}
