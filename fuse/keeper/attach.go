package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the mounter's side. The mounter keeps a copy of each descriptor
// that it is granted until the session has ended: when the keeper dies, these
// copies are what keeps applications from losing their mounts.

// Grant is a session to be served.
type Grant struct {
	ID       string
	Target   string
	ReadOnly bool
	Config   json.RawMessage
	// FD is the session's descriptor, non-blocking. It is valid until End or
	// Ended has returned; who serves works on a duplicate.
	FD int
	// Init is the kernel's INIT request. InitReply is the answer that it got, nil
	// on the first serve: then the handler writes one.
	Init, InitReply []byte
	// Serial names the session, and no other one that has or had its id.
	Serial string
	// Slots is the memfd that requests are to be read into, empty at first, valid
	// as long as FD. It is -1 when the keeper has none to give.
	Slots int
	// Resend: a predecessor may have read requests that do not stand in Slots.
	Resend bool
	// Ended tells the keeper that the session has ended in the kernel, for ever.
	// To be called when serving came to its end by itself, not from End.
	Ended func()
}

// Handler serves what the keeper grants. Calls for different sessions may come at
// the same time, for one session they do not.
type Handler interface {
	// Serve begins to serve a session and returns the answer to INIT that the
	// kernel has got. ctx bounds the beginning, not the serving. A failure leaves
	// nothing behind; the keeper may try again.
	Serve(ctx context.Context, g Grant) (initReply []byte, err error)
	// End closes a session: it returns when all that was acknowledged is safe, also
	// of a session that this process has never served, whose mounter died with it.
	End(ctx context.Context, e Ending) error
}

// Ending is a session that is to be closed.
type Ending struct {
	ID, Serial string
	ReadOnly   bool
	// Config is what Mount was called with. It is nil, and so is Serial, when the
	// keeper does not know the session either, and from one of an older version.
	Config json.RawMessage
}

// Reporter is a Handler that says how a session is, in words of its own.
type Reporter interface {
	Report(ctx context.Context, id string) (json.RawMessage, error)
}

// AttachOptions of Attach. The zero value works.
type AttachOptions struct {
	Log *slog.Logger
	// Backoff is the longest wait between two attempts to connect; 0 means 1 s.
	Backoff time.Duration
}

// serveTimeout bounds a handler that was asked to serve or to end a session.
const serveTimeout = 60 * time.Second

// Attach connects a mounter to the keeper and serves its grants until ctx ends;
// it returns ctx's error. When the keeper goes away, sessions are served on, and
// offered to the next keeper. It never gives up, whatever the failure: a mounter
// without a keeper still serves, and its copies are the last ones.
func Attach(ctx context.Context, socket string, h Handler, opts AttachOptions) error {
	a := &attachment{handler: h, log: opts.Log}
	a.mu.held = make(map[string]*held)
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	longest := opts.Backoff
	if longest <= 0 {
		longest = time.Second
	}
	defer a.release()
	wait, said := time.Duration(0), ""
	for {
		attached, err := a.once(ctx, socket)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case attached:
			a.log.Warn("the keeper is gone; sessions are served on", "err", err)
			wait, said = 0, ""
		case err.Error() != said:
			said = err.Error()
			a.log.Warn("the keeper does not take this mounter; trying on", "err", err)
		}
		wait = min(max(2*wait, 10*time.Millisecond), longest)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// attachment is what a mounter knows over all its connections.
type attachment struct {
	handler Handler
	log     *slog.Logger
	work    sync.WaitGroup

	mu struct {
		sync.Mutex
		held map[string]*held
		conn *conn // nil while there is no keeper
	}
}

// held is one session on the mounter's side.
type held struct {
	serial string
	turn   chan struct{}

	// Guarded by attachment.mu. What is not served yet may be granted anew, with
	// other slots.
	fds    []int // /dev/fuse and the memfd; nil when closed
	m      sessionMessage
	served bool
}

// once is one connection: hello, offers, ready, then grants until it breaks.
func (a *attachment) once(ctx context.Context, path string) (attached bool, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	socket, err := dial(dialCtx, path)
	if err != nil {
		return false, err
	}
	c := newConn(socket, a.handle)
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	defer func() {
		a.mu.Lock()
		if a.mu.conn == c {
			a.mu.conn = nil
		}
		a.mu.Unlock()
		c.close()
		c.wait()
	}()

	if err := a.greet(ctx, c); err != nil {
		c.close()
		a.log.Debug("the keeper was not greeted", "err", err, "conn", <-ended)
		return false, err
	}
	a.mu.Lock()
	a.mu.conn = c
	a.mu.Unlock()
	a.log.Info("attached to the keeper")
	return true, <-ended
}

// greet makes this process the mounter: every session that it holds is offered
// before the keeper grants others.
func (a *attachment) greet(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.call(ctx, opHello, helloMessage{Slots: true}, nil); err != nil {
		return err
	}
	a.mu.Lock()
	ids := make([]string, 0, len(a.mu.held))
	for id := range a.mu.held {
		ids = append(ids, id)
	}
	a.mu.Unlock()
	slices.Sort(ids)
	for _, id := range ids {
		if err := a.offer(ctx, c, id); err != nil {
			return err
		}
	}
	return c.call(ctx, opReady, struct{}{}, nil)
}

func (a *attachment) offer(ctx context.Context, c *conn, id string) error {
	a.mu.Lock()
	h := a.mu.held[id]
	if h == nil {
		a.mu.Unlock()
		return nil
	}
	o := offerMessage{sessionMessage: h.m, Served: h.served}
	var fds []int
	for _, fd := range h.fds {
		if fd, err := duplicate(fd); err == nil {
			fds = append(fds, fd)
		}
	}
	a.mu.Unlock()
	defer closeAll(fds)
	err := c.call(ctx, opOffer, o, nil, fds...)
	if storage.Is(err, storage.NotFound) {
		a.log.Info("a session has ended while there was no keeper", "volume", id)
		return a.end(ctx, o.ending())
	}
	return err
}

// handle answers the keeper. ctx does not end with the connection: the session may
// be one that nobody else holds any more.
func (a *attachment) handle(ctx context.Context, op string, body json.RawMessage, fds []int) (any, error) {
	switch op {
	case opGrant:
		var m sessionMessage
		if err := json.Unmarshal(body, &m); err != nil || len(fds) == 0 || m.ID == "" {
			closeAll(fds)
			return nil, storage.Errorf(storage.Invalid, "a grant that cannot be read")
		}
		reply, err := a.serve(ctx, m, fds)
		if errors.Is(err, ErrSlots) {
			a.log.Warn("the slots of a session are of no use; fresh ones are asked for", "volume", m.ID, "err", err)
			return grantAnswer{Refused: true}, nil
		}
		return grantAnswer{InitReply: reply}, err
	case opEnd:
		closeAll(fds)
		var m endRequest
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, storage.Errorf(storage.Invalid, "an end that cannot be read")
		}
		return nil, a.end(ctx, Ending(m))
	case opReport:
		closeAll(fds)
		var r idRequest
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, storage.Errorf(storage.Invalid, "a question that cannot be read")
		}
		if reporter, ok := a.handler.(Reporter); ok {
			return reporter.Report(ctx, r.ID)
		}
		return nil, nil
	}
	closeAll(fds)
	return nil, storage.Errorf(storage.Unsupported, "operation %q: not known to this mounter", op)
}

// serve takes a session over. It owns the descriptors. They are held from now on,
// even if serving fails, so that the session outlives a keeper that dies now.
func (a *attachment) serve(ctx context.Context, m sessionMessage, fds []int) ([]byte, error) {
	a.mu.Lock()
	h := a.mu.held[m.ID]
	if h != nil && h.serial != m.Serial {
		// One of the same id that has ended and whose end nobody told.
		a.mu.Unlock()
		if err := a.end(ctx, h.m.ending()); err != nil {
			closeAll(fds)
			return nil, err
		}
		a.mu.Lock()
		h = a.mu.held[m.ID]
	}
	if h == nil {
		h = &held{serial: m.Serial, fds: fds, m: m, turn: make(chan struct{}, 1)}
		a.mu.held[m.ID] = h
		fds = nil
	}
	a.mu.Unlock()

	if err := h.acquire(ctx); err != nil {
		closeAll(fds)
		return nil, err
	}
	defer h.release()
	a.mu.Lock()
	served, reply := h.served, h.m.InitReply
	current := a.mu.held[m.ID] == h
	if current && !served && fds != nil {
		// The first attempt failed; the keeper may have given it other slots.
		h.fds, fds = fds, h.fds
		h.m = m
	}
	slots := -1
	if len(h.fds) > 1 {
		slots = h.fds[1]
	}
	a.mu.Unlock()
	closeAll(fds)
	switch {
	case !current:
		return nil, storage.Errorf(storage.NotFound, "session %s has ended", m.ID)
	case served:
		return reply, nil
	}
	reply, err := a.handler.Serve(ctx, Grant{
		ID: m.ID, Target: m.Target, ReadOnly: m.ReadOnly, Config: m.Config,
		FD: h.fds[0], Init: h.m.Init, InitReply: reply,
		Serial: m.Serial, Slots: slots, Resend: h.m.Resend || slots < 0 && reply != nil,
		Ended: func() { a.ended(context.WithoutCancel(ctx), m.ID, h) },
	})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	h.served, h.m.InitReply, h.m.Resend = true, reply, false
	a.mu.Unlock()
	return reply, nil
}

// end closes a session and lets go of it.
func (a *attachment) end(ctx context.Context, e Ending) error {
	a.mu.Lock()
	h := a.mu.held[e.ID]
	a.mu.Unlock()
	if h == nil {
		return a.handler.End(ctx, e)
	}
	if err := h.acquire(ctx); err != nil {
		return err
	}
	defer h.release()
	e.Serial = h.serial
	if err := a.handler.End(ctx, e); err != nil {
		return err
	}
	a.drop(e.ID, h)
	return nil
}

// ended is Grant.Ended: the session came to its end in the kernel. The keeper
// answers by End, or, when there is none, hears of it never and needs not.
func (a *attachment) ended(ctx context.Context, id string, h *held) {
	a.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, serveTimeout)
		defer cancel()
		a.mu.Lock()
		c, current := a.mu.conn, a.mu.held[id] == h
		a.mu.Unlock()
		if !current {
			return
		}
		if c != nil && c.call(ctx, opEnded, idRequest{ID: id}, nil) == nil {
			return
		}
		if err := a.end(ctx, h.m.ending()); err != nil && !errors.Is(err, context.Canceled) {
			a.log.Warn("an ended session was not closed", "volume", id, "err", err)
		}
	})
}

func (a *attachment) drop(id string, h *held) {
	a.mu.Lock()
	if a.mu.held[id] == h {
		delete(a.mu.held, id)
	}
	fds := h.fds
	h.fds = nil
	a.mu.Unlock()
	closeAll(fds)
}

// release lets go of everything at the end of Attach: the keeper has its own
// copies, or the process is about to die with its sessions.
func (a *attachment) release() {
	a.work.Wait()
	a.mu.Lock()
	all := a.mu.held
	a.mu.held = nil
	a.mu.Unlock()
	for _, h := range all {
		closeAll(h.fds)
	}
}

func (h *held) acquire(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *held) release() { <-h.turn }

// offerMessage is a session that a mounter holds.
type offerMessage struct {
	sessionMessage
	// Served is false when the mounter holds it but could not serve it yet.
	Served bool `json:"served,omitempty"`
}
