package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// Options of a session. The zero value works.
type Options struct {
	// Log is where panics and oddities of the protocol go.
	Log *slog.Logger
	// InitReply is the answer to INIT that the kernel has got already. Nil on the
	// first serve.
	InitReply []byte
	// Slots are shared with other sessions, and with the successors of this
	// process; nil makes a pool for this session and this process alone. They
	// are to be closed after the session.
	Slots *Slots
	// Name tells the session from all others that ever use these slots.
	Name string
	// Resend: a predecessor may have read requests that the slots do not hold.
	Resend bool
	// Replayed, when set, is called with the opcode of each request of a
	// predecessor that is run again.
	Replayed func(opcode uint32)
	// Counters and Traffic, when set, are told of each request that is answered; not of
	// forgets and interrupts, which have no answer.
	Counters *Counters
	Traffic  *Traffic
	// Drain is how long Run, once its context has ended, waits for handlers to
	// answer by themselves, and once more for those that it has cancelled. What is
	// not answered then is left for a successor: applications wait meanwhile, and a
	// handler may hang on the network for minutes. 0 means DefaultDrain.
	Drain time.Duration
}

// DefaultDrain lets those answer that need nobody but this node.
const DefaultDrain = 50 * time.Millisecond

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if o.Drain < 0 {
		return storage.Errorf(storage.Invalid, "drain %v: must not be negative", o.Drain)
	}
	return nil
}

// Session is one kernel session, served. It works on a duplicate of the
// descriptor that New was given: the session in the kernel ends only when every
// copy is closed.
type Session struct {
	raw    fuse.RawFileSystem
	server *fuse.ProtocolServer
	// interrupter is raw, if it wants to hear of interrupts.
	interrupter Interrupter
	// prompter is raw, if it can answer in the reader.
	prompter Prompter
	log      *slog.Logger
	slots    *Slots
	replayed func(opcode uint32)
	counters *Counters
	traffic  *Traffic
	fault    func(point string, opcode uint32) // of tests

	// Fixed after New.
	fd        int
	file      *os.File // owns fd
	conn      syscall.RawConn
	initReply []byte
	drain     time.Duration
	ownPool   bool
	notifier  *Notifier
	key       uint64
	resend    bool

	spare   slot          // the reader's: what it reads into
	attr    attrAnswer    // and answers with
	share   chan struct{} // one token for each large buffer that handlers hold
	answers chan struct{} // one token for each large answer that they make
	heap    *heap
	hands   *hands
	running chan struct{} // closed when Run has returned
	stopped chan struct{} // closed by Close
	gate    chan struct{} // closed when what a predecessor left is answered
	void    chan struct{} // closed when answers are no longer written

	mu struct {
		sync.Mutex
		started, closed bool
		// abandoned: answers are no longer written; a successor will.
		// INVARIANT: void is closed when it is set.
		abandoned bool
		inflight  map[uint64]*flight // by the unique that go-fuse knows
	}
}

// New makes a session on fd, a /dev/fuse descriptor that is mounted. It replays
// initRequest and starts nothing. raw.Init is not called: notifications are
// sent through Notifier. The caller keeps fd; it becomes non-blocking, for every
// process that shares it.
func New(raw fuse.RawFileSystem, fd int, initRequest []byte, opts Options) (*Session, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Session{
		raw: raw, log: opts.Log, slots: opts.Slots, drain: opts.Drain,
		key: keyOf(opts.Name), resend: opts.Resend, replayed: opts.Replayed,
		counters: opts.Counters, traffic: opts.Traffic,
		heap: &heap{}, running: make(chan struct{}),
	}
	s.hands = newHands(s.running)
	s.interrupter, _ = raw.(Interrupter)
	s.prompter, _ = raw.(Prompter)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.drain == 0 {
		s.drain = DefaultDrain
	}
	var err error
	if s.server, s.initReply, err = replay(raw, initRequest, opts.InitReply, s.log); err != nil {
		return nil, err
	}
	if s.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("duplicate the session's descriptor: %w", err)
	}
	if err = unix.SetNonblock(s.fd, true); err != nil {
		_ = unix.Close(s.fd)
		return nil, fmt.Errorf("make the session's descriptor non-blocking: %w", err)
	}
	s.file = os.NewFile(uintptr(s.fd), "/dev/fuse")
	if s.conn, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("the session's descriptor: %w", err)
	}
	if s.slots == nil {
		if s.slots, err = NewSlots(SlotOptions{}); err != nil {
			_ = s.file.Close()
			return nil, err
		}
		s.ownPool = true
	}
	s.share = make(chan struct{}, max(1, cap(s.slots.room)/2))
	s.answers = make(chan struct{}, max(1, cap(s.slots.answers)/2))
	s.stopped = make(chan struct{})
	s.gate = make(chan struct{})
	s.void = make(chan struct{})
	s.mu.inflight = make(map[uint64]*flight)
	s.notifier = newNotifier(s)
	return s, nil
}

// InitReply returns the answer to INIT, to be kept with the request.
func (s *Session) InitReply() []byte { return s.initReply }

// Notifier returns the queue of notifications. It may be used before Run; they
// are sent once that reads.
func (s *Session) Notifier() *Notifier { return s.notifier }

// Accept writes the answer to INIT: once in a session's life, before its first
// Run. A predecessor that died between the answer and telling the keeper has
// done it already, and that is fine.
func (s *Session) Accept() error {
	_, err := unix.Write(s.fd, s.initReply)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("answer INIT: %w", err)
	}
	return nil
}

// Run serves until the session is unmounted, and returns nil then, or until ctx
// ends, and returns its error. In the second case the handlers get a moment to
// answer; what they have not answered by then is left to a successor, never
// failed. A handler that does not heed its cancellation may still run when Run
// returns: its answer is void, and Close waits for it. A process that ends anyway
// does without Close. Run may be called once.
func (s *Session) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.started || s.mu.closed {
		s.mu.Unlock()
		return storage.Errorf(storage.Invalid, "the session runs already or is closed")
	}
	s.mu.started = true
	s.mu.Unlock()
	defer close(s.running)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	// The deadline wakes the reader; it is not used for anything else.
	defer context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })()

	notified := make(chan struct{})
	go func() {
		defer close(notified)
		s.notifier.run(ctx)
	}()

	err := s.inherit(ctx)
	if err == nil {
		err = s.read(ctx)
	}
	unmounted := err == nil
	if unmounted {
		s.abandon(0)
	} else {
		s.settle()
		if !s.abandon(s.drain) {
			s.log.Info("requests are left to the next process")
		}
	}
	cancel()
	// A notification may hang until a successor answers what we did not; the
	// thread is known by its name and nobody waits for it.
	select {
	case <-notified:
	case <-time.After(s.drain):
	}
	if unmounted {
		s.discard()
		s.raw.OnUnmount()
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Close ends Run and waits for it and for every handler.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.closed = true
	started := s.mu.started
	s.mu.Unlock()
	close(s.stopped)
	if started {
		<-s.running
	}
	s.abandon(0)
	s.notifier.close()
	err := s.file.Close()
	if err != nil {
		err = fmt.Errorf("close the session's descriptor: %w", err)
	}
	if s.ownPool {
		err = errors.Join(err, s.slots.Close())
	}
	return err
}

// discard drops what nobody waits for any more.
func (s *Session) discard() {
	for _, sl := range s.slots.claim(s.key) {
		s.slots.give(sl)
	}
}

// settle waits, within the drain time, for handlers to answer by themselves.
func (s *Session) settle() {
	deadline := time.NewTimer(s.drain)
	defer deadline.Stop()
	select {
	case <-s.idle():
	case <-deadline.C:
	}
}

// abandon makes the handlers' answers void, cancels the handlers and waits for
// them; not longer than limit, unless that is 0. It reports whether they have ended.
func (s *Session) abandon(limit time.Duration) bool {
	s.mu.Lock()
	if !s.mu.abandoned {
		s.mu.abandoned = true
		close(s.void)
	}
	s.mu.Unlock()
	idle := s.idle()
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s.cancelAll()
		select {
		case <-idle:
			return true
		case <-late:
			return false
		case <-tick.C: // one may have been between its start and go-fuse's list
		}
	}
}

func (s *Session) abandoned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.abandoned
}

// idle returns a channel that is closed when no handler runs. No new ones start
// once the reader has returned.
func (s *Session) idle() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.hands.wait()
	}()
	return done
}
