package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// lockWait bridges the death of a killed owner's processes.
const lockWait = 2 * time.Second

// fullBelow is how little free space counts as a full disk when a start failed.
const fullBelow = 1 << 20

// Cluster is one life of a cluster: New, Start, then Stop or Kill. For another
// life of the same folder make another Cluster.
type Cluster struct {
	opts  Options
	dir   folder
	ports Ports
	at    Endpoints
	group *supervise.Group

	// abort ends a Start under way.
	abort context.CancelFunc
	abCtx context.Context
	// started is closed when Start has returned or will never run; done when
	// nothing is left.
	started, done chan struct{}
	endOnce       sync.Once

	// renewing is the goroutine that renews certificates; it ends with abCtx.
	renewing sync.WaitGroup
	// certifying keeps two renewals apart.
	certifying sync.Mutex
	authority  *pki.Authority // guarded by certifying

	// progress keeps two reports apart.
	progress sync.Mutex

	mu struct {
		sync.Mutex
		// INVARIANT: begun is set by the first of Start, Stop and Kill; lock is
		// held from then until done.
		begun bool
		lock  *os.File
	}
}

// New checks the options. It touches nothing.
func New(o Options) (*Cluster, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	c := &Cluster{
		opts:    o,
		dir:     folder(o.Dir),
		ports:   PortPlan(o.PortBase, o.VolumeServers),
		group:   supervise.NewGroup(supervise.Options{Logger: o.Logger}),
		started: make(chan struct{}),
		done:    make(chan struct{}),
	}
	c.at = o.endpoints(c.ports)
	c.abCtx, c.abort = context.WithCancel(context.Background())
	return c, nil
}

// Start starts everything and returns when S3 answers and every process works.
// When it fails nothing is left running. ctx bounds the start only.
func (c *Cluster) Start(ctx context.Context) error {
	c.mu.Lock()
	if c.mu.begun {
		c.mu.Unlock()
		return storage.Errorf(storage.Invalid, "this cluster was started or stopped before")
	}
	c.mu.begun = true
	c.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.StartTimeout,
		storage.Errorf(storage.Unavailable, "not within %s", c.opts.StartTimeout))
	defer cancel()
	defer context.AfterFunc(c.abCtx, cancel)() //nolint:contextcheck // the cluster's own end, beside the caller's

	err := c.start(ctx)
	close(c.started)
	if err != nil {
		c.end()
		return fmt.Errorf("start the cluster in %s: %w", c.opts.Dir, err)
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) error {
	begin := time.Now()
	if u := c.opts.User; u != nil && os.Geteuid() != 0 {
		return storage.Errorf(storage.Denied, "only root can run it as uid %d", u.UID)
	}
	if err := checkBuild(ctx, c.opts.Weed); err != nil {
		return err
	}
	kek, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	all := specs(c.opts, kek)
	prober, err := newProber(c.at, c.opts)
	if err != nil {
		return err
	}
	prober.attach(all, func(name string) {
		select {
		case <-c.started:
			c.report("%s is ready again", name)
		default:
			c.report("%s is ready (%s)", name, time.Since(begin).Round(time.Millisecond))
		}
	})
	c.mu.Lock()
	lock := c.mu.lock
	c.mu.Unlock()
	for i := range all {
		all[i].Inherit = []*os.File{lock}
	}
	if err := c.startStages(ctx, all); err != nil {
		if free, spaceErr := c.dir.space(); spaceErr == nil && free < fullBelow {
			return storage.Errorf(storage.Full, "the disk of %s is full (%d bytes free): %w", c.dir, free, err)
		}
		return err
	}
	c.renewing.Go(func() { c.renew(c.abCtx) }) // it lives as long as the cluster, not as the start
	return nil
}

// startStages starts what others need before them. All at once was tried: weed
// takes a master or filer that is not up yet badly, and asks it again after 1.8 s
// (volume server), 7 s (filer) or 1 s (gateway); S3 then answered after 1.6 s at
// best and 8.6 s at worst.
func (c *Cluster) startStages(ctx context.Context, all []supervise.Spec) error {
	last := len(all) - 1
	for _, stage := range [][]supervise.Spec{all[:1], all[1:last], all[last:]} {
		if err := c.group.Start(ctx, stage...); err != nil {
			return err
		}
	}
	return nil
}

// prepare does all that comes before the first process.
func (c *Cluster) prepare(ctx context.Context) (kek string, err error) {
	o := c.opts
	if err := c.dir.create(o.User); err != nil {
		return "", err
	}
	lock, err := lockFile(ctx, c.dir.lock(), lockWait)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.mu.lock = lock
	c.mu.Unlock()
	if err := c.dir.claim(o.VolumeServers); err != nil {
		return "", err
	}
	if err := FreeBase(ctx, o.IP, o.PortBase, o.VolumeServers); err != nil {
		return "", err
	}
	if err := c.dir.prepare(o.VolumeServers, o.User); err != nil {
		return "", err
	}
	if o.User != nil {
		if err := errors.Join(reach(o.Dir, *o.User, 1), reach(o.Weed, *o.User, 5)); err != nil {
			return "", err
		}
	}
	if err := c.dir.adoptPort(c.ports.Master.HTTP); err != nil {
		return "", err
	}
	free, err := c.dir.space()
	if err != nil {
		return "", err
	}
	if free < minFreeSpaceBytes {
		// Not an error: the way out may be to start it and delete something.
		c.report("The disk of %s has %d MiB left: below %d MiB nothing is written, reads and deletions go on", c.dir, free>>20, minFreeSpaceBytes>>20)
		o.Logger.Warn("little disk space, volumes are read-only", "path", o.Dir, "free", free)
	}
	if err := c.Certify(); err != nil {
		return "", err
	}
	if o.PKI != "" && o.User != nil {
		if err := reach(o.PKI, *o.User, 1); err != nil {
			return "", err
		}
	}
	return c.dir.writeConfig(o)
}

// Stop ends the processes in order: the gateway first, so that no request is cut
// off, then the filer, the volume servers, the master. When ctx ends the rest is
// killed, which loses nothing that was acknowledged. The error says what had to
// be killed. Stop of a stopped cluster is fine.
func (c *Cluster) Stop(ctx context.Context) error {
	if !c.interrupt() {
		return nil
	}
	volumes := make([]string, len(c.ports.Volumes))
	for i := range volumes {
		volumes[i] = volumeName(i)
	}
	var errs []error
	for _, stage := range []struct {
		say   string
		names []string
	}{
		{"Stopping the S3 gateway", []string{s3Name}},
		{"Stopping the filer (it takes 15 seconds)", []string{filerName}},
		{"Stopping the volume servers", volumes},
		{"Stopping the master", []string{masterName}},
	} {
		c.report("%s", stage.say)
		errs = append(errs, c.group.Stop(ctx, stage.names...))
	}
	c.end()
	return errors.Join(errs...)
}

// Kill ends the processes at once, as a power cut would, and waits for their end.
func (c *Cluster) Kill() {
	if c.interrupt() {
		c.end()
	}
}

// interrupt ends a Start under way, forbids a later one, and reports whether
// there may be anything to end.
func (c *Cluster) interrupt() bool {
	c.mu.Lock()
	begun := c.mu.begun
	c.mu.begun = true
	c.mu.Unlock()
	if !begun {
		close(c.started)
		c.end()
		return false
	}
	c.abort()
	<-c.started
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// end kills what is left, releases the lock and says that all is over.
func (c *Cluster) end() {
	c.endOnce.Do(func() {
		c.abort()
		c.renewing.Wait()
		c.group.Close()
		c.mu.Lock()
		if c.mu.lock != nil {
			_ = c.mu.lock.Close()
			c.mu.lock = nil
		}
		c.mu.Unlock()
		close(c.done)
	})
	<-c.done
}

// Done is closed when the cluster is over: stopped, killed, or not started for an
// error. A process that dies does not end it, it is started again.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Wait returns when the cluster is over or ctx ends.
func (c *Cluster) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status of each process: master, volume1, …, filer, s3.
func (c *Cluster) Status() []supervise.Status { return c.group.Status() }

// Endpoints of the cluster, known before Start.
func (c *Cluster) Endpoints() Endpoints {
	e := c.at
	e.VolumeHTTP, e.VolumeGRPC = slices.Clone(e.VolumeHTTP), slices.Clone(e.VolumeGRPC)
	return e
}

// Ports of the cluster.
func (c *Cluster) Ports() Ports { return PortPlan(c.opts.PortBase, c.opts.VolumeServers) }

// AdminKeys are those of the options.
func (c *Cluster) AdminKeys() storage.Keys { return c.opts.AdminKeys }

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.opts.Dir }

func (c *Cluster) report(format string, args ...any) {
	c.progress.Lock()
	defer c.progress.Unlock()
	c.opts.Progress(fmt.Sprintf(format, args...))
}
