package volumes

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/driver/keyspb"
)

// Keys tell which keys of a volume work, without their secrets.
type Keys struct {
	Access  string       `json:"access_key_id"`
	Retired []RetiredKey `json:"retired"`
}

// RetiredKey was replaced and works until its end.
type RetiredKey struct {
	Access string    `json:"access_key_id"`
	Until  time.Time `json:"until"`
}

// Keys asks which keys of a volume work.
func (c *Client) Keys(ctx context.Context, v Volume) (Keys, error) {
	resp, err := c.keys.Get(ctx, &keyspb.GetRequest{VolumeId: v.ID})
	if err != nil {
		return Keys{}, c.explain(err)
	}
	return fromKeys(resp), nil
}

// rotateTries is for a controller that is restarted meanwhile.
const rotateTries = 3

// RotateKeys replaces a volume's keys; the old ones work until the overlap ends.
// It names the key to be replaced, so that an answer that was lost is asked for
// again without another rotation.
func (c *Client) RotateKeys(ctx context.Context, v Volume, overlap time.Duration) (Keys, error) {
	now, err := c.Keys(ctx, v)
	if err != nil {
		return Keys{}, err
	}
	for try := 1; ; try++ {
		resp, err := c.keys.Rotate(ctx, &keyspb.RotateRequest{VolumeId: v.ID, Overlap: overlap.Nanoseconds(), Replace: now.Access})
		if err == nil {
			return fromKeys(resp), nil
		}
		if status.Code(err) != codes.Unavailable || try == rotateTries {
			return Keys{}, c.explain(err)
		}
		select {
		case <-ctx.Done():
			return Keys{}, errors.Join(c.explain(err), ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

func fromKeys(resp *keyspb.KeysResponse) Keys {
	k := Keys{Access: resp.GetAccessKeyId(), Retired: []RetiredKey{}}
	for _, r := range resp.GetRetired() {
		k.Retired = append(k.Retired, RetiredKey{Access: r.GetAccessKeyId(), Until: time.Unix(0, r.GetUntil()).UTC()})
	}
	return k
}
