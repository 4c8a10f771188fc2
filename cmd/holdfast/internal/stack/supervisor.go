package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/doctor"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

const (
	// startTimeout bounds the whole start; the cluster's own is a minute.
	startTimeout = 3 * time.Minute
	// stopTimeout bounds the whole stop, of which the filer takes 15 s.
	stopTimeout = 90 * time.Second
	// refreshEvery is how often the status is written and the keeper and the
	// mounter are looked at.
	refreshEvery = 500 * time.Millisecond
)

// supervisor runs an installation, from the lock to the last process.
type supervisor struct {
	opts     Options
	log      *slog.Logger
	binaries binaries
	cluster  *cluster.Cluster
	services *supervise.Group

	// saving keeps an older status from being written over a newer one. It is
	// taken before mu.
	saving sync.Mutex
	file   statusWriter

	mu struct {
		sync.Mutex
		status Status
		// Of the keeper and the mounter: whether they did their work at the last
		// look, and how often they were started again.
		answers  map[string]bool
		restarts map[string]int
	}
}

// Run starts everything, stays until ctx ends, and stops everything. ready is
// called when all works. Whatever the error, no child is left running; a keeper
// and a mounter are, if a mount is busy.
func Run(ctx context.Context, o Options, ready func(Status)) (err error) {
	lock, err := o.Dir.TryLock(state.Supervisor)
	if errors.Is(err, state.ErrLocked) {
		return fmt.Errorf("an installation runs with state %s already", o.Dir)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	log, file := openLogger(o.Dir, "supervisor")
	defer func() { _ = file.Close() }()
	s := &supervisor{opts: o, log: log, file: statusWriter{path: statusFile(o.Dir)}}
	s.mu.answers, s.mu.restarts = map[string]bool{}, map[string]int{}
	s.services = supervise.NewGroup(supervise.Options{Logger: log})
	self, err := process.Of(os.Getpid())
	if err != nil {
		return err
	}
	s.mu.status = Status{Phase: Starting, State: string(o.Dir), Supervisor: self, Since: time.Now()}
	if err := s.save(); err != nil {
		return err
	}

	if err := s.start(ctx); err != nil {
		log.Error("start failed", "err", err)
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if stopErr := s.stop(stop); stopErr != nil {
			log.Error("stop after a failed start", "err", stopErr)
		}
		s.phase(Failed, err)
		return err
	}
	s.look(ctx)
	log.Info("started", "dur", time.Since(s.status().Since))
	s.phase(Ready, nil)
	ready(s.status())

	s.watch(ctx)

	log.Info("stopping")
	s.phase(Stopping, nil)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = s.stop(stop)
	if err != nil {
		log.Error("stop", "err", err)
	}
	s.phase(Stopped, err)
	return err
}

// start brings everything up, the cluster and the services at once.
func (s *supervisor) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %s", startTimeout))
	defer cancel()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := startKeeper(ctx, s.opts, s.binaries.mount, false); err != nil {
		return err
	}
	// What was mounted when everything was killed answers ENOTCONN for ever.
	dead, err := keeperOf(s.opts.Dir).Reap(ctx)
	if err != nil {
		return fmt.Errorf("detach dead mounts: %w", err)
	}
	s.log.Info("keeper found or started", "detached", dead)
	s.step("The keeper is ready")
	if _, err := startMounter(ctx, s.opts, s.binaries.mount, s.cluster); err != nil {
		return err
	}
	nodeID, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name of this machine: %w", err)
	}
	var wg sync.WaitGroup
	both, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, start := range []func(context.Context) error{
		s.cluster.Start,
		func(ctx context.Context) error {
			return s.services.Start(ctx, services(s.opts, s.binaries.holdfast, s.cluster, nodeID)...)
		},
	} {
		wg.Go(func() {
			if err := start(both); err != nil {
				fail(err) // the first stays
			}
		})
	}
	wg.Wait()
	if err := context.Cause(both); err != nil {
		return err
	}
	s.step("The CSI services are ready")
	return s.remount(ctx)
}

// prepare makes the choices that need no process.
func (s *supervisor) prepare(ctx context.Context) error {
	o := s.opts
	accounts := o.accounts()
	keys, err := o.Dir.LoadKeys(accounts)
	if err != nil {
		return err
	}
	weed, err := cluster.FindWeed(ctx, o.FindOptions())
	if err != nil {
		return err
	}
	if s.binaries, err = findBinaries(o.Dir, weed); err != nil {
		return err
	}
	base, say, err := o.choosePorts(ctx)
	if err != nil {
		return err
	}
	s3TLS, err := o.chooseS3TLS()
	if err != nil {
		return err
	}
	if say != "" {
		s.warn(say)
	}
	if disk := doctor.Space(o.Dir); !disk.OK {
		s.warn(fmt.Sprintf("little disk space: %s; %s", disk.Detail, disk.Mend))
	}
	options := cluster.Options{
		Dir: o.Dir.Cluster(), Weed: s.binaries.weed, IP: IP, PortBase: base, VolumeServers: VolumeServers,
		AdminKeys: keys, Logger: s.log, Progress: s.step,
		PKI: o.Dir.PKI(), Clients: o.clients(), S3TLS: s3TLS,
	}
	if os.Getuid() == 0 {
		options.User = serviceUser(accounts.Services)
	}
	if s.cluster, err = cluster.New(options); err != nil {
		return err
	}
	// Before the mounter, which is started first.
	if err := s.cluster.Certify(); err != nil {
		return err
	}
	at := s.cluster.Endpoints()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.status.PortBase = base
	s.mu.status.Steps = startSteps
	s.mu.status.Endpoints = Endpoints{
		S3: at.S3URL, Filer: at.FilerGRPC,
		Controller: o.Dir.ControllerSocket(), Node: o.Dir.NodeSocket(), AdminKeys: o.Dir.AdminKeys(),
	}
	return nil
}

// remount makes the mounts that were there. One that cannot be made is told and
// does not keep the rest from running.
func (s *supervisor) remount(ctx context.Context) (err error) {
	client, err := volumes.Dial(s.opts.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	err = client.MountAll(ctx, func(r volumes.Record) {
		s.step(fmt.Sprintf("Mounting %s at %s", r.Name, r.Target))
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.log.Warn("mounts are missing", "err", err)
		s.warn(err.Error())
	}
	return nil
}
