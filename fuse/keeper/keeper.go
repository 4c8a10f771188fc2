package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// Options of a Keeper.
type Options struct {
	Log *slog.Logger
	// RunDir holds the sockets and the lock. Its last element is made if missing.
	RunDir string
	// NodeUID and MounterUID may connect, beside root.
	NodeUID, MounterUID int
	// AllowRoots are folders beneath which targets may lie. A node that is not
	// root may also use directories that it owns.
	AllowRoots []string
	// NotifierThread is the name of the mounter's threads that the fence does not
	// wait for (session.NotifierThread).
	NotifierThread string
	// NoSlots gives no mounter memory for requests: what one leaves has to be sent
	// again by the kernel. For tests of that.
	NoSlots bool
	// MounterWait is how long a request waits for a mounter; 0 means 10 s.
	MounterWait time.Duration
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if err := checkPath(o.RunDir); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	for _, root := range o.AllowRoots {
		if err := checkPath(root); err != nil {
			return fmt.Errorf("allowed root: %w", err)
		}
	}
	if o.NodeUID < 0 || o.MounterUID < 0 {
		return storage.Errorf(storage.Invalid, "the uids of the node and of the mounter must not be negative")
	}
	return nil
}

// Keeper is the privileged process.
type Keeper struct {
	log *slog.Logger

	// Fixed after New.
	opts Options
	tag  string

	keys   keyed
	probes sync.Map // ids of mounts whose probe hangs
	work   sync.WaitGroup
	stop   chan struct{} // closed by Shutdown
	once   sync.Once
	// stopped is closed when Run is about to return.
	stopped chan struct{}

	// INVARIANT: a session in the table holds its descriptor.
	mu table
}

// New makes a keeper. No I/O.
func New(opts Options) (*Keeper, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	k := &Keeper{opts: opts, log: opts.Log, tag: tagOf(opts.RunDir), stop: make(chan struct{}), stopped: make(chan struct{})}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	k.mu.sessions = make(map[string]*session)
	k.mu.changed = make(chan struct{})
	k.mu.slots = -1
	return k, nil
}

// Run works until ctx ends (it returns ctx's error) or until Shutdown was asked
// for (nil). It unmounts nothing: sessions live on in the mounter. Run may be
// called once.
func (k *Keeper) Run(ctx context.Context) error {
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := unix.Mkdir(k.opts.RunDir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("run folder %s: %w", k.opts.RunDir, err)
	}
	dir, err := unix.Open(k.opts.RunDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError(k.opts.RunDir, err)
	}
	defer closeAll([]int{dir})
	locked, err := lock(dir)
	if err != nil {
		return err
	}
	defer closeAll([]int{locked})

	nodes, err := listen(ctx, dir, nodeSocket, k.opts.NodeUID)
	if err != nil {
		return err
	}
	defer func() { _ = nodes.Close() }()
	mounters, err := listen(ctx, dir, mounterSocket, k.opts.MounterUID)
	if err != nil {
		return err
	}
	defer func() { _ = mounters.Close() }()
	defer k.release()

	k.log.Info("the keeper is up", "path", k.opts.RunDir)
	var accepting sync.WaitGroup
	accepting.Go(func() { k.accept(life, nodes, k.opts.NodeUID, k.serveNode) })
	accepting.Go(func() { k.accept(life, mounters, k.opts.MounterUID, k.serveMounter) })
	select {
	case <-ctx.Done():
	case <-k.stop:
	}
	_ = nodes.Close()
	_ = mounters.Close()
	cancel()
	close(k.stopped)
	accepting.Wait()
	k.work.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// onward is for work that goes on after its asker has left, though not after Run.
func (k *Keeper) onward(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grantTimeout)
	go func() {
		select {
		case <-k.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// release closes what the keeper holds of the sessions.
func (k *Keeper) release() {
	for _, s := range k.all() {
		s.close()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.mounter != nil {
		k.mu.mounter.proc.close()
	}
	closeAll([]int{k.mu.slots})
	k.mu.slots = -1
}

// accept serves connections of uid and root, and no others.
func (k *Keeper) accept(ctx context.Context, l *net.UnixListener, uid int, serve func(context.Context, *net.UnixConn, process)) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				k.log.Error("the keeper accepts no more connections", "err", err)
			}
			return
		}
		p, err := peer(c)
		if err == nil && p.uid != 0 && p.uid != uid {
			err = storage.Errorf(storage.Denied, "uid %d may not connect", p.uid)
		}
		if err != nil {
			k.log.Warn("a connection was refused", "err", err, "pid", p.pid)
			p.close()
			_ = c.Close()
			continue
		}
		serving.Go(func() { serve(ctx, c, p) })
	}
}

// serveNode serves one connection of the node. Operations that run are finished,
// and answered if somebody still listens.
func (k *Keeper) serveNode(ctx context.Context, socket *net.UnixConn, p process) {
	defer p.close()
	c := newConn(socket, k.handleNode)
	c.finish = true
	_ = c.run(ctx)
	c.wait()
}

// serveMounter serves one connection of a mounter.
func (k *Keeper) serveMounter(ctx context.Context, socket *net.UnixConn, p process) {
	m := &mounter{proc: p}
	m.conn = newConn(socket, k.handleMounter(m))
	err := m.conn.run(ctx)
	k.mu.Lock()
	m.lost = true
	k.mu.changeLocked()
	k.mu.Unlock()
	m.conn.wait()
	k.mu.Lock()
	greeted := m.greeted
	k.mu.Unlock()
	if !greeted {
		p.close()
		return
	}
	k.log.Warn("the mounter is gone", "pid", p.pid, "err", err)
}

func (k *Keeper) handleNode(ctx context.Context, op string, body json.RawMessage, fds []int) (any, error) {
	closeAll(fds)
	switch op {
	case opMount:
		return call(body, func(r MountRequest) (any, error) { return nil, k.mount(ctx, r) })
	case opBind:
		return call(body, func(r BindRequest) (any, error) { return nil, k.bind(ctx, r) })
	case opUnmount:
		return call(body, func(r targetRequest) (any, error) { return nil, k.unmount(ctx, r.Target) })
	case opSettle:
		return call(body, func(r idRequest) (any, error) { return nil, k.settle(ctx, r.ID) })
	case opSessions:
		return call(body, func(r sessionsRequest) (any, error) { return k.list(ctx, r.After) })
	case opHealth:
		return call(body, func(r idRequest) (any, error) { return k.health(ctx, r.ID) })
	case opReap:
		detached, err := k.reap(ctx)
		return reapAnswer{Detached: detached}, err
	case opShutdown:
		return nil, k.shutdown()
	}
	return nil, storage.Errorf(storage.Unsupported, "operation %q: not known to this keeper", op)
}

func call[T any](body json.RawMessage, f func(T) (any, error)) (any, error) {
	var r T
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, storage.Errorf(storage.Invalid, "a request that cannot be read: %w", err)
	}
	return f(r)
}

// shutdown ends Run unless sessions live.
func (k *Keeper) shutdown() error {
	all := k.all()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(all) > 0 || len(k.mu.sessions) > 0 {
		return storage.Errorf(storage.InUse, "the keeper holds %d sessions: unmount them first", max(len(all), len(k.mu.sessions)))
	}
	k.mu.closing = true
	k.once.Do(func() { close(k.stop) })
	return nil
}
