package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
)

// keeperMounter is the keeper in the driver's words.
type keeperMounter struct{ keeper *keeper.Node }

var _ driver.Mounter = keeperMounter{}

// Mount implements driver.Mounter.
func (m keeperMounter) Mount(ctx context.Context, id, target string, o driver.MountOptions, config []byte) error {
	err := m.keeper.Mount(ctx, keeper.MountRequest{ID: id, Target: target, ReadOnly: o.ReadOnly, Context: o.Context, FSName: id, Config: config})
	if err != nil {
		return err
	}
	settle(ctx, target)
	return nil
}

// Bind implements driver.Mounter.
func (m keeperMounter) Bind(ctx context.Context, id, target string, o driver.BindOptions) error {
	return m.keeper.Bind(ctx, keeper.BindRequest{ID: id, Target: target, BindOptions: keeper.BindOptions(o)})
}

// Unmount implements driver.Mounter.
func (m keeperMounter) Unmount(ctx context.Context, target string) error {
	return m.keeper.Unmount(ctx, target)
}

// Settle implements driver.Mounter. A keeper of an older version is as it was.
func (m keeperMounter) Settle(ctx context.Context, id string) error {
	err := m.keeper.Settle(ctx, id)
	if storage.Is(err, storage.Unsupported) {
		return nil
	}
	return err
}

// Mounts implements driver.Mounter.
func (m keeperMounter) Mounts(ctx context.Context) ([]driver.Mounted, error) {
	sessions, err := m.keeper.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	mounts := make([]driver.Mounted, 0, len(sessions))
	for _, s := range sessions {
		var config driver.MountConfig // none of a mount that nobody has brought
		if len(s.Config) > 0 {
			if err := json.Unmarshal(s.Config, &config); err != nil {
				return nil, fmt.Errorf("the configuration of session %s: %w", s.ID, err)
			}
		}
		mounts = append(mounts, driver.Mounted{
			Group: config.Group, Inline: config.Inline,
			ID: s.ID, Target: s.Target, Binds: s.Binds, ReadOnly: s.ReadOnly, Healthy: s.Serving && !s.Dead, Dead: s.Dead,
		})
	}
	return mounts, nil
}

// report is what the mounter says of a volume.
type report struct {
	Took      time.Duration `json:"took"`
	Away      string        `json:"away"`
	Gone      bool          `json:"gone"`
	Leftovers int           `json:"leftovers"`
	Behind    time.Duration `json:"behind"`
	Why       string        `json:"why"`
}

// Health implements driver.Mounter.
func (m keeperMounter) Health(ctx context.Context, id string) (driver.Health, error) {
	k, err := m.keeper.Health(ctx, id)
	if err != nil {
		return driver.Health{}, err
	}
	var r report
	if len(k.Report) > 0 { // an older mounter gives none
		if err := json.Unmarshal(k.Report, &r); err != nil {
			return driver.Health{}, fmt.Errorf("what the mounter says of volume %s: %w", id, err)
		}
	}
	return driver.Health{
		Dead: k.Dead, Serving: k.Serving, Silent: k.Silent, Away: r.Away, Gone: r.Gone,
		Waiting: k.Waiting, Took: r.Took, Leftovers: r.Leftovers,
		Behind: r.Behind, Why: r.Why,
	}, nil
}

// settleTimeout bounds settle: a mount whose server hangs answers nothing.
const settleTimeout = 5 * time.Second

// settle lets the kernel learn the root's mode before anybody uses the mount. A
// new FUSE root has no permissions at all until its attributes have been asked
// for, and the kernel drops an answer that an invalidation overtakes: the one that
// comes when the mount begins to watch for changes would let the first user see
// EACCES. So the child asks twice.
func settle(ctx context.Context, target string) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, _ = statfs(ctx, target) // the next one who asks hears the error
}
