package stack

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/storage"
)

// The steps of a start beside the mounts (keeper, services and five processes of
// the cluster), and of a stop (mounter, keeper, services and four stages).
const (
	startSteps = 7
	stopSteps  = 7
)

// stop ends everything in the order in which nothing waits for what is gone. It
// goes on after an error: what can be ended is ended.
func (s *supervisor) stop(ctx context.Context) error {
	s.mu.Lock()
	s.mu.status.Step, s.mu.status.Steps = 0, stopSteps
	s.mu.Unlock()

	errs := []error{s.unmount(ctx)}
	if errs[0] == nil {
		s.step("Stopping the mounter")
		errs = append(errs, stopMounter(ctx, s.opts.Dir))
		s.step("Stopping the keeper")
		errs = append(errs, stopKeeper(ctx, s.opts.Dir))
	}
	s.step("Stopping the CSI services")
	errs = append(errs, s.services.Stop(ctx))
	s.services.Close()
	if s.cluster != nil {
		err := s.cluster.Stop(ctx)
		if storage.Is(err, storage.Busy) {
			errs = append(errs, err) // a process that cannot be killed
		} else if err != nil {
			// What had to be killed has lost nothing that was acknowledged.
			s.log.Warn("the cluster did not end by itself", "err", err)
			s.warn(err.Error())
		}
	}
	return errors.Join(errs...)
}

// unmount takes all mounts away. If one is busy it stays, with the keeper and the
// mounter, as after a crash of ours: the next start finds them.
func (s *supervisor) unmount(ctx context.Context) (err error) {
	sessions, err := keeperOf(s.opts.Dir).Sessions(ctx)
	if err != nil || len(sessions) == 0 {
		return nil // no keeper, or nothing mounted
	}
	if node := s.services.Process(nodeName); node == nil || !node.Status().Ready {
		return fmt.Errorf("%d volumes stay mounted, since the node service is not there to unmount them", len(sessions))
	}
	client, err := volumes.Dial(s.opts.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return client.UnmountAll(ctx, func(r volumes.Record) {
		s.step(fmt.Sprintf("Unmounting %s", r.Target))
	})
}
