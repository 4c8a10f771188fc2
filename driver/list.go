package driver

import (
	"context"
	"encoding/base64"
	"math"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// pageSize is how many records are read at once.
	pageSize = 500
	// tokenPrefix tells our paging tokens from anything else.
	tokenPrefix = "after:"
)

// ListVolumes implements csi.ControllerServer. Volumes that are half-made or
// half-deleted are listed too, or nobody could clean them up.
func (c *Controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	limit, after, err := paging(req)
	if err != nil {
		return nil, err
	}
	resp := &csi.ListVolumesResponse{}
	for {
		ask := pageSize
		if limit > 0 {
			// One more, to know whether there is another page.
			ask = min(ask, limit-len(resp.Entries)+1)
		}
		page, err := c.records.ListRecords(ctx, after, ask)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			if limit > 0 && len(resp.Entries) == limit {
				resp.NextToken = token(after)
				return resp, nil
			}
			resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{
				Volume: toCSI(r), Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: c.seen.Live(&r)},
			})
			after = r.ID
		}
		if len(page) < ask {
			return resp, nil
		}
	}
}

// pageRequest is a call that lists volumes page by page.
type pageRequest interface {
	GetMaxEntries() int32
	GetStartingToken() string
}

// paging is how many entries a call wants, 0 for all, and after which volume.
func paging(req pageRequest) (limit int, after storage.VolumeID, err error) {
	if limit = int(req.GetMaxEntries()); limit < 0 {
		return 0, "", storage.Errorf(storage.Invalid, "max_entries %d must not be negative", limit)
	}
	after, err = parseToken(req.GetStartingToken())
	return limit, after, err
}

func token(after storage.VolumeID) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + string(after)))
}

// parseToken returns Aborted for a bad token, as CSI wants it: the caller starts
// again from the beginning.
func parseToken(s string) (storage.VolumeID, error) {
	if s == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	after, ok := strings.CutPrefix(string(raw), tokenPrefix)
	if err != nil || !ok {
		return "", status.Errorf(codes.Aborted, "starting_token %q was not given out by this driver; start without one", s)
	}
	return storage.VolumeID(after), nil
}

// ControllerGetVolume implements csi.ControllerServer.
func (c *Controller) ControllerGetVolume(ctx context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	r, err := c.get(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	v := toCSI(r)
	v.VolumeContext[contextLeases] = c.leases(&r)
	return &csi.ControllerGetVolumeResponse{Volume: v, Status: &csi.ControllerGetVolumeResponse_VolumeStatus{
		PublishedNodeIds: c.seen.Live(&r),
	}}, nil
}

func (c *Controller) get(ctx context.Context, volumeID string) (storage.Record, error) {
	id, err := checkVolumeID(volumeID)
	if err != nil {
		return storage.Record{}, err
	}
	return c.records.GetRecord(ctx, id)
}

// GetCapacity implements csi.ControllerServer: what the servers' disks still take, of
// content that is stored as often as the parameters have it. What other volumes were
// promised and have not written is not taken off: a volume's size is a limit and reserves
// nothing, and CreateVolume refuses nobody for it. Taking it off was the design that lost:
// one generous StorageClass would keep every other pod from being scheduled on an empty
// cluster. A measurement that fails is an error, never a zero, which would do the same.
func (c *Controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if c.capacity == nil {
		return nil, storage.Errorf(storage.Unsupported, "capacity is not measured here")
	}
	free, err := c.free(ctx, req)
	switch {
	case storage.Is(err, storage.Full):
		free = 0
	case storage.Is(err, storage.Invalid):
		return ofAnySize(0), nil
	case err != nil:
		return nil, err
	}
	if free == 0 {
		return &csi.GetCapacityResponse{}, nil
	}
	return ofAnySize(free), nil
}

// ofAnySize says that a claim's size is no reason to wait. Kubernetes' scheduler would
// otherwise hold it against what is free, and keep pods waiting for volumes that
// CreateVolume makes at once. It would also keep one waiting, for room, whose volume is
// refused for its parameters: now it is CreateVolume that refuses it, and says why.
func ofAnySize(free int64) *csi.GetCapacityResponse {
	return &csi.GetCapacityResponse{AvailableCapacity: free, MaximumVolumeSize: wrapperspb.Int64(math.MaxInt64)}
}

// free is what can still be stored as the request has it: Invalid where nothing can,
// whatever the room.
func (c *Controller) free(ctx context.Context, req *csi.GetCapacityRequest) (int64, error) {
	s, err := parseParams(req.GetParameters())
	if err != nil {
		return 0, err
	}
	for _, vc := range req.GetVolumeCapabilities() {
		if err := checkCapability(vc); err != nil {
			return 0, storage.Errorf(storage.Invalid, "no volume like that can be made: %w", err)
		}
	}
	servers, err := c.judge(ctx, s.placement)
	if err != nil {
		return 0, err
	}
	space, err := c.capacity.Space(ctx, s.placement)
	if err != nil {
		return 0, err
	}
	if s.placement.DiskType != "" || s.placement.DataCenter != "" { // space does not tell those apart
		if free, known := servers.Free(s.placement); known {
			space.Free = min(space.Free, free)
		}
	}
	return space.Free, nil
}
