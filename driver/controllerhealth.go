package driver

import (
	"cmp"
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file says how a volume is as the cluster knows it: its record and its
// bucket. What only a node can see, a node says.

// ControllerGetVolumeHealth implements csi.ControllerServer.
func (c *Controller) ControllerGetVolumeHealth(ctx context.Context, req *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	r, err := c.get(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	h, err := c.health(ctx, r)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: h}, nil
}

func (c *Controller) health(ctx context.Context, r storage.Record) (*csi.VolumeHealth, error) {
	h := &csi.VolumeHealth{VolumeId: string(r.ID)}
	switch r.Phase {
	case storage.Creating:
		h.HealthStatuses = []*condition{inaccessible("HalfMade", "volume %s is not made yet: repeat its creation, or delete it", r.ID)}
		return h, nil
	case storage.Deleting:
		h.HealthStatuses = []*condition{inaccessible("HalfDeleted", "volume %s is not deleted yet: repeat its deletion", r.ID)}
		return h, nil
	case storage.Ready, storage.Archived:
	}
	there, err := c.buckets.BucketExists(ctx, r.Bucket)
	if err != nil {
		return nil, err
	}
	if !there {
		h.HealthStatuses = []*condition{lost("BucketGone", "the bucket %s of volume %s is not there any more", r.Bucket, r.ID)}
		return h, nil
	}
	if !r.Placement.IsZero() && c.placer != nil {
		have, _, err := c.placer.Placed(ctx, r.Bucket, r.Prefix)
		if err != nil {
			return nil, err
		}
		if have != r.Placement {
			h.HealthStatuses = []*condition{degraded("RuleGone", "the store has not the rule of volume %s any more (%s, but %s): new content is stored otherwise; weed shell's fs.configure makes it again",
				r.ID, r.Placement, cmp.Or(have.String(), "none"))}
		}
	}
	if r.Phase != storage.Ready {
		return h, nil
	}
	flaw, _, err := c.flaw(ctx, r)
	if err != nil {
		return nil, err
	}
	if flaw != "" {
		h.HealthStatuses = append(h.HealthStatuses, degraded("KeysChanged", "S3 clients of volume %s may be refused, or may do too much: %s; rotate-keys makes it right", r.ID, flaw))
	}
	return h, nil
}

// ControllerListVolumeHealth implements csi.ControllerServer: of the volumes with
// which something is wrong.
func (c *Controller) ControllerListVolumeHealth(ctx context.Context, req *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	limit, after, err := paging(req)
	if err != nil {
		return nil, err
	}
	resp := &csi.ControllerListVolumeHealthResponse{}
	for r, err := range storage.RecordsAfter(ctx, c.records, after) {
		if err != nil {
			return nil, err
		}
		h, err := c.health(ctx, r)
		if err != nil {
			return nil, err
		}
		if len(h.GetHealthStatuses()) > 0 {
			if limit > 0 && len(resp.Entries) == limit {
				resp.NextToken = token(after)
				return resp, nil
			}
			resp.Entries = append(resp.Entries, h)
		}
		after = r.ID
	}
	return resp, nil
}
