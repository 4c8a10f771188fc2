package stack

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

// lookTimeout bounds a look at the keeper.
const lookTimeout = 5 * time.Second

// watch keeps the status fresh, and the keeper, the mounter and the mounts alive,
// until ctx ends.
func (s *supervisor) watch(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	deadBefore := false
	for {
		s.revive(ctx)
		dead := s.look(ctx)
		if err := s.save(); err != nil {
			s.log.Warn("status cannot be written", "err", err)
		}
		// Twice, so that nobody who is just being relieved is taken for dead.
		if dead && deadBefore {
			s.mend(ctx)
		}
		deadBefore = dead
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// revive starts the keeper and the mounter again if they are gone. The mounter
// comes second: it would wait for the keeper.
func (s *supervisor) revive(ctx context.Context) {
	if _, ok := noted(s.opts.Dir, keeperName); !ok {
		if _, ok := keeperID(ctx, s.opts.Dir); !ok && ctx.Err() == nil {
			s.log.Warn("the keeper is gone, it is started again")
			s.count(keeperName)
			if err := startKeeper(ctx, s.opts, s.binaries.mount, false); err != nil {
				s.log.Error("the keeper cannot be started again", "err", err)
			}
		}
	}
	if _, ok := noted(s.opts.Dir, mounterName); !ok && ctx.Err() == nil {
		s.log.Warn("the mounter is gone, it is started again")
		s.count(mounterName)
		if _, err := startMounter(ctx, s.opts, s.binaries.mount, s.cluster); err != nil {
			s.log.Error("the mounter cannot be started again", "err", err)
		}
	}
}

// look asks the keeper whether every mount is served, for the status, and reports
// whether one is dead.
func (s *supervisor) look(ctx context.Context) (dead bool) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	sessions, err := keeperOf(s.opts.Dir).Sessions(ctx)
	served := err == nil
	for _, session := range sessions {
		served = served && session.Serving
		dead = dead || session.Dead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.answers[keeperName], s.mu.answers[mounterName] = err == nil, served
	return dead
}

// mend puts new mounts where the keeper and the mounter died together, and the
// kernel's sessions with them.
func (s *supervisor) mend(ctx context.Context) {
	gone, err := keeperOf(s.opts.Dir).Reap(ctx)
	s.log.Warn("dead mounts are detached and mounted again", "path", gone)
	client, dialErr := volumes.Dial(s.opts.Dir)
	if err = errors.Join(err, dialErr); err == nil {
		err = errors.Join(client.MountAll(ctx, func(volumes.Record) {}), client.Close())
	}
	if err != nil && ctx.Err() == nil {
		s.log.Error("mounts are missing", "err", err)
	}
}
