package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the protocol: one JSON object for each SEQPACKET message, both
// sides may ask, an answer carries the number of its question. Descriptors
// travel with questions (SCM_RIGHTS). gRPC was the alternative; it cannot carry
// descriptors, and the privileged process stays smaller without it.

const (
	// maxMessage bounds a message, far below a socket's buffer.
	maxMessage = 64 << 10
	// maxFDs with one message; what comes beyond is closed by the kernel.
	maxFDs = 4
	// sendTimeout: who does not read for so long is dropped.
	sendTimeout = 10 * time.Second
	// maxServe bounds an operation, whatever the asker says.
	maxServe = 5 * time.Minute
)

// message is a question (ID and Op) or an answer (Re).
type message struct {
	ID uint64 `json:"id,omitempty"`
	Op string `json:"op,omitempty"`
	// Millis is how long the asker waits.
	Millis int64 `json:"ms,omitempty"`

	Re  uint64   `json:"re,omitempty"`
	Err *failure `json:"err,omitempty"`

	Body json.RawMessage `json:"body,omitempty"`
}

// failure is an error on the wire.
type failure struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// contextKinds are the errors that are no kinds.
var contextKinds = map[string]error{
	"canceled": context.Canceled,
	"deadline": context.DeadlineExceeded,
}

func toFailure(err error) *failure {
	for name, target := range contextKinds {
		if errors.Is(err, target) {
			return &failure{Kind: name, Text: err.Error()}
		}
	}
	return &failure{Kind: storage.KindOf(err).String(), Text: err.Error()}
}

func (f *failure) err() error {
	if target, ok := contextKinds[f.Kind]; ok {
		return fmt.Errorf("%s: %w", f.Text, target)
	}
	for _, k := range storage.Kinds() {
		if k.String() == f.Kind {
			return storage.Errorf(k, "%s", f.Text)
		}
	}
	return errors.New(f.Text)
}

// handleFunc answers a question. It owns the descriptors.
type handleFunc func(ctx context.Context, op string, body json.RawMessage, fds []int) (any, error)

// conn is one connection.
type conn struct {
	socket *net.UnixConn
	handle handleFunc
	// finish: when the context ends, what was asked is still answered.
	finish bool

	handlers sync.WaitGroup
	closed   chan struct{}
	once     sync.Once

	mu struct {
		sync.Mutex
		next    uint64
		waiting map[uint64]chan message
		gone    bool // run has returned: nobody will answer
	}
}

func newConn(socket *net.UnixConn, handle handleFunc) *conn {
	c := &conn{socket: socket, handle: handle, closed: make(chan struct{})}
	c.mu.waiting = make(map[uint64]chan message)
	return c
}

// close ends the connection. Handlers that run go on: what they do is complete
// or undone, whoever still listens.
func (c *conn) close() {
	c.once.Do(func() {
		close(c.closed)
		_ = c.socket.Close()
	})
}

// wait returns when no handler runs any more.
func (c *conn) wait() { c.handlers.Wait() }

// run reads until the connection ends. Each question gets a goroutine with a
// context of ctx.
func (c *conn) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		if c.finish {
			_ = c.socket.SetReadDeadline(time.Unix(1, 0))
			return
		}
		c.close()
	})()
	defer func() {
		if c.finish {
			c.wait()
		}
		c.close()
		c.mu.Lock()
		c.mu.gone = true
		waiting := c.mu.waiting
		c.mu.waiting = nil
		c.mu.Unlock()
		for _, w := range waiting {
			close(w)
		}
	}()
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	for {
		n, oobn, flags, _, err := c.socket.ReadMsgUnix(buf, oob)
		fds := descriptors(oob[:oobn])
		if err != nil {
			closeAll(fds)
			return err
		}
		if n == 0 && oobn == 0 {
			return net.ErrClosed
		}
		var m message
		if err := json.Unmarshal(buf[:n], &m); err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			closeAll(fds)
			return storage.Errorf(storage.Invalid, "a message of %d bytes that cannot be read", n)
		}
		if m.Re != 0 {
			closeAll(fds)
			c.mu.Lock()
			w := c.mu.waiting[m.Re]
			delete(c.mu.waiting, m.Re)
			c.mu.Unlock()
			if w != nil {
				w <- m
			}
			continue
		}
		c.handlers.Go(func() { c.answer(ctx, m, fds) })
	}
}

func (c *conn) answer(ctx context.Context, m message, fds []int) {
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(max(m.Millis, 1))*time.Millisecond, maxServe))
	defer cancel()
	var reply any
	var err error
	if c.handle == nil {
		closeAll(fds)
		err = storage.Errorf(storage.Unsupported, "operation %q: not here", m.Op)
	} else {
		reply, err = c.handle(ctx, m.Op, m.Body, fds)
	}
	answer := message{Re: m.ID}
	if err != nil {
		answer.Err = toFailure(err)
	} else if answer.Body, err = json.Marshal(reply); err != nil {
		answer.Err = toFailure(err)
	}
	if err := c.send(answer); err != nil {
		c.close()
	}
}

// call asks and waits for the answer. The descriptors stay the caller's.
func (c *conn) call(ctx context.Context, op string, body, reply any, fds ...int) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	wait := make(chan message, 1)
	c.mu.Lock()
	if c.mu.gone {
		c.mu.Unlock()
		return storage.Errorf(storage.Unavailable, "%s: the connection has ended", op)
	}
	c.mu.next++
	id := c.mu.next
	c.mu.waiting[id] = wait
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.mu.waiting, id)
		c.mu.Unlock()
	}()

	left := maxServe
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	if err := c.send(message{ID: id, Op: op, Millis: left.Milliseconds(), Body: b}, fds...); err != nil {
		if !storage.Is(err, storage.Invalid) {
			c.close()
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	select {
	case m, ok := <-wait:
		switch {
		case !ok:
			return storage.Errorf(storage.Unavailable, "%s: the connection has ended", op)
		case m.Err != nil:
			return m.Err.err()
		case reply != nil:
			if err := json.Unmarshal(m.Body, reply); err != nil {
				return fmt.Errorf("%s: the answer: %w", op, err)
			}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
}

func (c *conn) send(m message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return storage.Errorf(storage.Invalid, "a message of %d bytes: at most %d are allowed", len(b), maxMessage)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := c.socket.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return storage.Errorf(storage.Unavailable, "%w", err)
	}
	if _, _, err := c.socket.WriteMsgUnix(b, oob, nil); err != nil {
		return storage.Errorf(storage.Unavailable, "send: %w", err)
	}
	return nil
}

// descriptors takes the descriptors out of a control message.
func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// ended reports whether the connection was closed.
func (c *conn) ended() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
