package supervise

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// Options of a group. The zero value works.
type Options struct {
	// Logger hears of deaths and restarts. nil is silent.
	Logger *slog.Logger
}

// Group is a set of processes that share the thread that forks them.
type Group struct {
	logger *slog.Logger

	mu struct {
		sync.Mutex
		// INVARIANT: forker is nil until the first Start and after Close; names
		// in processes are unique.
		forker    *forker
		processes []*Process
		closed    bool
	}
	// starts are the calls of Start under way: Close waits for them.
	starts sync.WaitGroup
}

// NewGroup returns an empty group.
func NewGroup(o Options) *Group {
	g := &Group{logger: o.Logger}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	return g
}

// errOther ends the starts of the processes around one that failed.
var errOther = errors.New("another process failed")

// Start forks all specs at once and waits until each is ready. When one fails,
// or ctx ends, none of them is left running, and the error is of those that
// failed by themselves. ctx bounds the start, not the processes' lives.
func (g *Group) Start(ctx context.Context, specs ...Spec) error {
	added, err := g.add(specs)
	if err != nil {
		return err
	}
	defer g.starts.Done()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	errs := make([]error, len(added))
	for i, p := range added {
		wg.Go(func() {
			if errs[i] = p.start(ctx); errs[i] != nil {
				cancel(errOther) // of several causes the first stays
			}
		})
	}
	wg.Wait()
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	g.remove(added)
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, errOther) })...)
}

// add makes the processes and enters a start, which the caller ends.
func (g *Group) add(specs []Spec) ([]*Process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.closed {
		return nil, storage.Errorf(storage.Invalid, "the group of processes is closed")
	}
	names := map[string]bool{}
	for _, p := range g.mu.processes {
		names[p.spec.Name] = true
	}
	for _, s := range specs {
		if err := s.Validate(); err != nil {
			return nil, err
		}
		if names[s.Name] {
			return nil, storage.Errorf(storage.Exists, "%s: there is a process of that name", s.Name)
		}
		names[s.Name] = true
	}
	if g.mu.forker == nil {
		g.mu.forker = newForker()
	}
	var added []*Process
	for _, s := range specs {
		added = append(added, newProcess(g.mu.forker, g.logger, s))
	}
	g.mu.processes = append(g.mu.processes, added...)
	g.starts.Add(1)
	return added, nil
}

// remove kills processes and forgets them.
func (g *Group) remove(gone []*Process) {
	killAll(gone)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.processes = slices.DeleteFunc(g.mu.processes, func(p *Process) bool { return slices.Contains(gone, p) })
}

// Stop ends the named processes, all at once; without names, all of them. They
// stay in Status. The error says which ones had to be killed.
func (g *Group) Stop(ctx context.Context, names ...string) error {
	var wg sync.WaitGroup
	all := g.list()
	errs := make([]error, len(all))
	for i, p := range all {
		if len(names) == 0 || slices.Contains(names, p.spec.Name) {
			wg.Go(func() { errs[i] = p.Stop(ctx) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Kill ends all processes without grace and waits for them.
func (g *Group) Kill() { killAll(g.list()) }

// Close kills what is left and ends the group's thread. A closed group stays
// closed; its Status can still be read.
func (g *Group) Close() {
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		return
	}
	g.mu.closed = true
	g.mu.Unlock()

	g.Kill()
	g.starts.Wait()
	g.mu.Lock()
	f := g.mu.forker
	g.mu.forker = nil
	g.mu.Unlock()
	if f != nil {
		f.close()
	}
}

// Process returns the process of that name, or nil.
func (g *Group) Process(name string) *Process {
	for _, p := range g.list() {
		if p.spec.Name == name {
			return p
		}
	}
	return nil
}

// Status of all processes in the order they were started in.
func (g *Group) Status() []Status {
	var all []Status
	for _, p := range g.list() {
		all = append(all, p.Status())
	}
	return all
}

func (g *Group) list() []*Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.mu.processes)
}

func killAll(all []*Process) {
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(p.Kill)
	}
	wg.Wait()
}
