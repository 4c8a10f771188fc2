package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

const (
	// syncTimeout bounds how long the worker goes on to serve, when it is to end,
	// until what was written is in the cluster. Less than the parent's stopGrace.
	syncTimeout = 15 * time.Second
	// cacheTimeout bounds the cache's end. Applications wait for the next worker
	// already, and what is not closed costs a few blocks.
	cacheTimeout = 500 * time.Millisecond
)

// attachBackoff is the longest wait between two looks for a keeper: until the new
// one has been offered the sessions, this process holds the only copies.
const attachBackoff = 100 * time.Millisecond

// fileSystem is what a session is served by. It gets its notifier by Start, once
// the session is made, and commits what it holds in Close.
type fileSystem interface {
	gofuse.RawFileSystem
	session.Interrupter
	Start(n fuse.Notifier)
	// Abandon gives it up before Start.
	Abandon() error
	Close(ctx context.Context) error
	// Sync commits what it holds while it serves, and Leave ends it without a Close
	// for a session that lives on: the process ends.
	Sync(ctx context.Context) (left int)
	Leave()
	// Retire removes what is kept on the node for a session that has ended.
	Retire() error
}

var _ fileSystem = (*fuse.FS)(nil)

// factory makes the file system of a granted session.
type factory func(ctx context.Context, g keeper.Grant) (fileSystem, error)

// newWorker is the process that serves. It is started by serve, and by nobody
// else.
func newWorker(stderr io.Writer) *cobra.Command {
	var o serveOptions
	var number int64
	cmd := &cobra.Command{
		Use:    "worker",
		Short:  "Serve until the parent ends (started by serve)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := checkUnprivileged(); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			log, closeLog, err := o.logs.open(stderr, "mounter")
			if err != nil {
				return err
			}
			defer closeLog()
			ctx, alone := context.WithCancelCause(cmd.Context())
			defer alone(nil)
			go followParent(alone)
			keepSmall(ctx)

			volumes := filepath.Join(o.stateDir, "volumes")
			if err := os.Mkdir(volumes, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("state folder: %w", err)
			}
			secret, err := o.tls.TLS()
			if err != nil {
				return err
			}
			cluster, err := seaweed.Open(ctx, seaweed.Options{Filer: o.filer, TLS: secret, CallTimeout: o.deadline, Logger: log})
			if err != nil {
				return err
			}
			options := o.cache()
			options.Log = log
			chunks, err := cache.Open(ctx, options)
			if err != nil {
				return errors.Join(err, cluster.Close())
			}
			defer func() {
				// The cluster first: what still waits for it ends, and the cache
				// waits for that.
				err = errors.Join(err, cluster.Close())
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
				defer cancel()
				if err := chunks.Close(ctx); err != nil {
					log.Warn("the cache was not closed", "err", err)
				}
			}()
			var count *counted
			if o.metrics != "" {
				if count, err = openCounted(number); err != nil {
					return err
				}
				count.collectCache(chunks)
			}
			uploads := fuse.NewUploads(0)
			open := func(_ context.Context, g keeper.Grant) (fileSystem, error) {
				return o.openFileSystem(cluster, chunks, uploads, volumes, log, count, g) //nolint:contextcheck // what it takes over is bounded by its own deadline
			}
			left := func(e keeper.Ending) (keeper.Ending, bool, error) { return leftOf(volumes, e) }
			return work(ctx, log, o.keeper, open, left, count)
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().Int64Var(&number, "worker-number", 0, "how many workers the parent has started, this one among them")
	return cmd
}

// followParent ends the worker when the parent is gone: a parent that comes
// later would otherwise find the place taken.
func followParent(alone context.CancelCauseFunc) {
	f := os.NewFile(lifeline, "lifeline")
	if f == nil {
		return
	}
	_, _ = f.Read(make([]byte, 1))
	alone(context.Canceled)
}

// work serves grants until ctx ends, and returns nil then.
func work(ctx context.Context, log *slog.Logger, socket string, open factory, left func(keeper.Ending) (keeper.Ending, bool, error), count *counted) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s := &server{open: open, left: left, log: log, counted: count, pools: session.NewPools(session.SlotOptions{}), life: life, fail: fail}
	s.mu.sessions = make(map[string]*serving)
	if count != nil {
		count.collectSessions(s)
		var telling sync.WaitGroup
		telling.Go(func() { count.serve(ctx, log) })
		defer telling.Wait()
	}
	// It returns the cause: what fail was called with, or that ctx has ended.
	err := keeper.Attach(ctx, socket, s, keeper.AttachOptions{Log: log, Backoff: attachBackoff})
	if storage.IsContext(err) {
		err = nil
		s.sync(life)
	}
	end()
	s.leave()
	return err
}

// server serves the sessions of this process. It implements keeper.Handler.
type server struct {
	open factory
	// left says whether the node keeps something of a session, and what it was.
	left func(keeper.Ending) (keeper.Ending, bool, error)
	log  *slog.Logger
	// counted is nil where nobody wants to know.
	counted *counted
	pools   *session.Pools
	life    context.Context         // of the sessions
	fail    context.CancelCauseFunc // ends the attachment to the keeper

	mu struct {
		sync.Mutex
		sessions map[string]*serving
	}
}

var _ keeper.Handler = (*server)(nil)

// serving is one session with its file system.
type serving struct {
	session *session.Session
	slots   *session.Slots
	fs      fileSystem
	done    chan struct{} // closed when Run has returned
	// taken over from a worker before.
	taken   bool
	traffic *session.Traffic

	once     sync.Once // for slots
	released error
}

// Serve implements keeper.Handler.
func (s *server) Serve(ctx context.Context, g keeper.Grant) (reply []byte, err error) {
	fs, err := s.open(ctx, g)
	if err != nil {
		return nil, err
	}
	log := s.log.With("volume", g.ID)
	slots, err := s.slots(g)
	if err != nil {
		return nil, errors.Join(err, fs.Abandon())
	}
	traffic := &session.Traffic{}
	sess, err := session.New(fs, g.FD, g.Init, s.counted.options(session.Options{
		Log: log, InitReply: g.InitReply, Slots: slots, Name: g.Serial, Resend: g.Resend,
	}, traffic))
	if err != nil {
		return nil, errors.Join(err, slots.Close(), fs.Abandon())
	}
	if g.InitReply == nil {
		if err := sess.Accept(); err != nil {
			return nil, errors.Join(err, sess.Close(), slots.Close(), fs.Abandon())
		}
	}
	fs.Start(sess.Notifier())
	sv := &serving{session: sess, slots: slots, fs: fs, done: make(chan struct{}), taken: g.InitReply != nil, traffic: traffic}
	s.mu.Lock()
	s.mu.sessions[g.ID] = sv
	s.mu.Unlock()
	go s.run(sv, g, log)
	log.Info("serving", "path", g.Target)
	return sess.InitReply(), nil
}

// slots maps the memory that the keeper has granted. A keeper without any is of an
// older version: then the requests are safe in this process only.
func (s *server) slots(g keeper.Grant) (*session.Slots, error) {
	if g.Slots < 0 {
		return session.NewSlots(session.SlotOptions{})
	}
	slots, err := s.pools.Open(g.Slots)
	if storage.Is(err, storage.Unsupported) || storage.Is(err, storage.Corrupt) {
		return nil, fmt.Errorf("%w: %w", keeper.ErrSlots, err)
	}
	return slots, err
}

func (s *server) run(sv *serving, g keeper.Grant, log *slog.Logger) {
	defer close(sv.done)
	switch err := sv.session.Run(s.life); {
	case err == nil:
		log.Info("unmounted", "path", g.Target)
		g.Ended()
	case s.life.Err() == nil && !storage.IsContext(err):
		// Nothing that this process can mend; a successor may.
		log.Error("a session can no longer be served", "err", err)
		s.fail(fmt.Errorf("session %s: %w", g.ID, err))
	}
}

// End implements keeper.Handler. When the file system cannot be closed, the
// session stays, and the keeper asks again.
func (s *server) End(ctx context.Context, e keeper.Ending) error {
	s.mu.Lock()
	sv := s.mu.sessions[e.ID]
	s.mu.Unlock()
	if sv == nil {
		s.pools.Forget(e.Serial)
		return s.endLeft(ctx, e)
	}
	if err := sv.end(ctx); err != nil {
		return err
	}
	s.retire(e.ID, sv.fs)
	s.mu.Lock()
	delete(s.mu.sessions, e.ID)
	s.mu.Unlock()
	return nil
}

func (s *server) retire(id string, fs fileSystem) {
	if err := fs.Retire(); err != nil {
		s.log.Warn("the folder of a volume stays", "volume", id, "err", err)
	}
}

func (sv *serving) end(ctx context.Context) error {
	if err := sv.session.Close(); err != nil {
		return err
	}
	<-sv.done
	sv.once.Do(func() { sv.released = sv.slots.Close() })
	if sv.released != nil {
		return sv.released
	}
	if err := sv.fs.Close(ctx); err != nil {
		return fmt.Errorf("close the file system: %w", err)
	}
	return nil
}

// sync brings what was written to the cluster, as far as that goes, while the
// sessions are served on: applications do not wait for it. What stays is in the
// journals.
func (s *server) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	var syncing sync.WaitGroup
	for id, sv := range s.all() {
		syncing.Go(func() {
			if left := sv.fs.Sync(ctx); left > 0 {
				s.log.Warn("not all that was written is in the cluster; the next worker goes on", "volume", id, "files", left)
			}
		})
	}
	syncing.Wait()
}

// leave waits until nothing of the sessions is read or answered any more. They live
// on in the keeper, with what was not answered, and the process is to end: a
// handler that hangs on the network is not waited for, since applications would be.
func (s *server) leave() {
	all := s.all()
	for _, sv := range all {
		<-sv.done
	}
	for _, sv := range all {
		sv.fs.Leave()
	}
}

func (s *server) all() map[string]*serving {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.mu.sessions)
}
