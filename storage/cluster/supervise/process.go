package supervise

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// killWait is how long a killed child is waited for. One that hangs in the kernel
// (a dead disk) cannot be reaped; waiting for ever would hide that.
const killWait = 10 * time.Second

// Status is what is known of a process.
type Status struct {
	Name string
	// PID of the present life, 0 between two.
	PID     int
	Running bool
	// Ready is set once the spec's Ready has returned nil in this life.
	Ready bool
	// Since is the start of the present life, or the end of the last one.
	Since time.Time
	// Restarts counts the lives after the first.
	Restarts int
	// LastExit says how the life before ended: "exit status 1", "signal: killed".
	LastExit string
}

// Process keeps one child alive. Its goroutine is run; Stop and Kill wait for it.
type Process struct {
	forker *forker
	logger *slog.Logger
	out    *output
	spec   Spec

	stopOnce, killOnce sync.Once
	stop               chan struct{} // closed: end the child, start no other
	killed             chan struct{} // closed: without grace
	done               chan struct{} // closed: no child, no goroutine

	mu struct {
		sync.Mutex
		status Status
		// forced is set when the last child had to be killed by Stop.
		forced bool
	}
}

func newProcess(f *forker, logger *slog.Logger, spec Spec) *Process {
	p := &Process{
		forker: f,
		logger: logger.With("process", spec.Name),
		out:    newOutput(spec.LogFile),
		spec:   spec.withDefaults(),
		stop:   make(chan struct{}),
		killed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	p.mu.status = Status{Name: spec.Name, Since: time.Now()}
	return p
}

// start forks the first life and returns when it is ready. A child that dies
// before, or is not ready when ctx ends, is killed and its last lines are in the
// error. There is no second try here: who starts something wants to hear at once
// why it fails.
func (p *Process) start(ctx context.Context) error {
	c, err := p.fork() //nolint:contextcheck // the child outlives the call that starts it
	if err != nil {
		close(p.done)
		p.out.close()
		return err
	}
	first := make(chan probed, 1)
	go p.run(c, first) //nolint:contextcheck // ends with Stop or Kill
	var result probed
	select {
	case result = <-first:
	case <-ctx.Done():
		p.Kill()
		result = <-first
		return fmt.Errorf("%s: not ready in time: %w (%s)%s", p.spec.Name, context.Cause(ctx), result.why(), p.out.tail())
	}
	if result.err == nil {
		return nil
	}
	p.Kill()
	if result.died {
		return storage.Errorf(storage.Unavailable, "%s: ended before it was ready (%s)%s", p.spec.Name, p.Status().LastExit, p.out.tail())
	}
	return fmt.Errorf("%s: not ready: %w%s", p.spec.Name, result.err, p.out.tail())
}

// probed is the answer of a spec's Ready, and whether the child ended first.
type probed struct {
	err  error
	died bool
}

func (r probed) why() string {
	if r.err == nil {
		return "too late"
	}
	return r.err.Error()
}

func (p *Process) fork() (*child, error) {
	p.out.reset()
	c, err := fork(p.forker, p.spec, p.out)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.mu.status
	s.PID, s.Running, s.Ready, s.Since = c.pid, true, false, c.since
	return c, nil
}

// run lives as long as the process does: watch a child, wait, start the next.
func (p *Process) run(c *child, first chan<- probed) {
	defer close(p.done)
	defer p.out.close()
	deaths := 0
	for {
		if c != nil {
			p.watch(c, first)
			first = nil
			if time.Since(c.since) >= p.spec.Backoff.Healthy {
				deaths = 0
			}
		}
		deaths++
		if !p.pause(p.spec.Backoff.delay(deaths)) {
			return
		}
		var err error
		if c, err = p.fork(); err != nil {
			p.logger.Warn("process cannot be started again", "err", err)
			continue
		}
		p.mu.Lock()
		p.mu.status.Restarts++
		p.mu.Unlock()
		p.logger.Info("process started again", "pid", c.pid)
	}
}

// pause returns false when the process shall end.
func (p *Process) pause(d time.Duration) bool {
	select {
	case <-p.stop: // seen first, even with no pause at all
		return false
	default:
	}
	select {
	case <-p.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// watch returns when the child is reaped, by its own doing or by ours.
func (p *Process) watch(c *child, first chan<- probed) {
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan struct{})
	go func() {
		defer close(told)
		p.probe(ctx, c, first)
	}()
	forced := false
	select {
	case <-c.exited:
		cancel()
	case <-p.stop:
		cancel()
		forced = p.end(c)
	}
	<-told
	p.ended(c, forced)
}

// probe waits for readiness and tells it to Status and, in the first life, to
// start.
func (p *Process) probe(ctx context.Context, c *child, first chan<- probed) {
	var r probed
	if p.spec.Ready != nil {
		r.err = p.spec.Ready(ctx)
	}
	r.died = r.err != nil && ctx.Err() != nil
	switch {
	case r.err == nil:
		p.mu.Lock()
		p.mu.status.Ready = true
		p.mu.Unlock()
	case first == nil && !r.died:
		p.logger.Warn("process runs but is not ready", "pid", c.pid, "err", r.err)
	}
	if first != nil {
		first <- r
	}
}

// end stops a running child and reports whether it had to be killed.
func (p *Process) end(c *child) (forced bool) {
	c.terminate()
	grace := time.NewTimer(p.spec.StopGrace)
	defer grace.Stop()
	select {
	case <-c.exited:
		return false
	case <-p.killed:
	case <-grace.C:
	}
	c.kill()
	<-c.exited
	return true
}

// ended notes the end of a life.
func (p *Process) ended(c *child, forced bool) {
	p.mu.Lock()
	s := &p.mu.status
	s.PID, s.Running, s.Ready, s.Since, s.LastExit = 0, false, false, time.Now(), c.exit
	p.mu.forced = forced
	p.mu.Unlock()
	select {
	case <-p.stop:
	default:
		p.logger.Warn("process ended by itself", "pid", c.pid, "exit", c.exit, "output", p.out.tail())
	}
}

// Stop ends the process for good: SIGTERM, and SIGKILL when the grace or ctx is
// over. It returns when the child is reaped; an error says that it was killed.
func (p *Process) Stop(ctx context.Context) error {
	p.stopOnce.Do(func() { close(p.stop) })
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.mu.status.Running:
		return storage.Errorf(storage.Busy, "%s: process %d cannot be killed", p.spec.Name, p.mu.status.PID)
	case p.mu.forced:
		return fmt.Errorf("%s: did not stop when asked and was killed", p.spec.Name)
	}
	return nil
}

// Kill ends the process for good, without grace, and waits until it is reaped.
func (p *Process) Kill() {
	p.killOnce.Do(func() { close(p.killed) })
	p.stopOnce.Do(func() { close(p.stop) })
	select {
	case <-p.done:
	case <-time.After(killWait):
		p.logger.Error("process cannot be killed", "pid", p.Status().PID)
	}
}

// Status returns what is known now.
func (p *Process) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.status
}
