package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/leftovers"
)

// Down stops an installation. It reports whether there was something to stop. A
// busy mount keeps everything running as it was.
func Down(ctx context.Context, o Options) (ran bool, err error) {
	status, err := ReadStatus(o.Dir)
	if err != nil {
		return false, err
	}
	if status.Phase == Stopped || status.Phase == Failed {
		return downLeftovers(ctx, o)
	}
	if status.Phase == Ready {
		if err := unmountAll(ctx, o); err != nil {
			return true, err
		}
	}
	if err := status.Supervisor.Signal(syscall.SIGTERM); err != nil {
		return true, err
	}
	return true, followStop(ctx, o, status)
}

// unmountAll asks the running driver for it, all or nothing.
func unmountAll(ctx context.Context, o Options) (err error) {
	client, err := volumes.Dial(o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return client.UnmountAll(ctx, func(r volumes.Record) {
		o.report(0, 0, fmt.Sprintf("Unmounting %s", r.Target))
	})
}

// followStop reports the steps until the supervisor has ended.
func followStop(ctx context.Context, o Options, running Status) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout+10*time.Second)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for running.Supervisor.Alive() {
		if s, err := ReadStatus(o.Dir); err == nil && s.Phase == Stopping && s.Doing != "" {
			o.report(s.Step, s.Steps, s.Doing)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the supervisor (pid %d) still stops: %w", running.Supervisor.PID, ctx.Err())
		case <-tick.C:
		}
	}
	if s, err := ReadStatus(o.Dir); err == nil && s.Error != "" {
		return errors.New(s.Error)
	}
	return nil
}

// downLeftovers ends what a killed supervisor has left: the mounts, the mounter
// and the keeper. There is no driver to ask, so it speaks to the keeper.
func downLeftovers(ctx context.Context, o Options) (ran bool, err error) {
	id, ok := noted(o.Dir, mounterName)
	if _, alive := keeperID(ctx, o.Dir); !alive && !ok {
		return false, nil
	}
	node := keeperOf(o.Dir)
	sessions, err := node.Sessions(ctx)
	if err != nil {
		sessions = nil // the keeper is gone, and with the mounter its mounts are
	}
	for i, s := range sessions {
		o.report(i, len(sessions), "Unmounting "+s.Target)
		if err := unmountSession(ctx, node, s); err != nil {
			return true, err
		}
	}
	if ok {
		o.report(0, 0, fmt.Sprintf("Stopping the mounter (pid %d)", id.PID))
	}
	return true, errors.Join(stopMounter(ctx, o.Dir), stopKeeper(ctx, o.Dir))
}

// unmountSession takes the binds away first. On an error it makes those again.
func unmountSession(ctx context.Context, node *keeper.Node, s keeper.SessionInfo) error {
	for i, target := range append(s.Binds, s.Target) {
		err := node.Unmount(ctx, target)
		if err == nil {
			continue
		}
		for j, back := range s.Binds[:min(i, len(s.Binds))] {
			options := keeper.BindOptions{ReadOnly: s.ReadOnly}
			if j < len(s.BindOptions) { // an older keeper does not tell them
				options = s.BindOptions[j]
			}
			if backErr := node.Bind(ctx, keeper.BindRequest{ID: s.ID, Target: back, BindOptions: options}); backErr != nil {
				err = errors.Join(err, fmt.Errorf("%s is not mounted again: %w", back, backErr))
			}
		}
		return err
	}
	return nil
}

// Leftovers counts the files that mounts have kept aside, since they could not be
// committed.
func Leftovers(dir state.Dir) (kept int) {
	volumes := filepath.Join(dir.Mounter(), "volumes")
	all, _ := os.ReadDir(volumes) // what cannot be read is not counted
	for _, v := range all {
		if !v.IsDir() { // a link leads to what is not removed
			continue
		}
		n, _ := leftovers.Count(filepath.Join(volumes, v.Name()))
		kept += n
	}
	return kept
}

// Delete removes the state of an installation that is stopped, with all data.
func Delete(dir state.Dir) error {
	records, err := volumes.ReadRecords(dir)
	if err != nil {
		return err
	}
	if err := dir.Remove(); err != nil {
		return err
	}
	return records.RemoveTargets()
}
