package driver

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/driver/keyspb"
)

// Keys serves what CSI has no call for, on the controller's socket. The command
// line could have changed the record and the user by itself, as it reads the record for
// the credentials; then it would need the administrator's keys, hold the new secret,
// and meet the controller's own operations on the volume without seeing them. Here
// the secret goes from its making into the record through the controller alone.
type Keys struct {
	keyspb.UnimplementedVolumeKeysServer
	c *Controller
}

var _ keyspb.VolumeKeysServer = (*Keys)(nil)

// NewKeys makes the service.
func NewKeys(c *Controller) *Keys { return &Keys{c: c} }

// Register implements Service.
func (k *Keys) Register(s grpc.ServiceRegistrar) { keyspb.RegisterVolumeKeysServer(s, k) }

// Rotate implements keyspb.VolumeKeysServer.
func (k *Keys) Rotate(ctx context.Context, req *keyspb.RotateRequest) (*keyspb.KeysResponse, error) {
	id, err := checkVolumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	keys, err := k.c.RotateKeys(ctx, id, req.GetReplace(), time.Duration(req.GetOverlap()))
	if err != nil {
		return nil, err
	}
	return keysResponse(keys), nil
}

// Get implements keyspb.VolumeKeysServer.
func (k *Keys) Get(ctx context.Context, req *keyspb.GetRequest) (*keyspb.KeysResponse, error) {
	id, err := checkVolumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	keys, err := k.c.ReadKeys(ctx, id)
	if err != nil {
		return nil, err
	}
	return keysResponse(keys), nil
}

func keysResponse(keys VolumeKeys) *keyspb.KeysResponse {
	resp := &keyspb.KeysResponse{AccessKeyId: keys.Access}
	for _, r := range keys.Retired {
		resp.Retired = append(resp.Retired, &keyspb.RetiredKey{AccessKeyId: r.Access, Until: r.Until.UnixNano()})
	}
	return resp
}
