package seaweed

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// maxBusy bounds the exchanges under way with one server; who comes later
	// waits. A volume server on a spinning disk is not faster with more.
	maxBusy = 128
	// maxKept bounds the unused connections to one server.
	maxKept = 64
	// keptFor is shorter than the 30 s after which a volume server closes what
	// nobody uses.
	keptFor = 20 * time.Second
	// dialTimeout bounds one attempt to connect: a machine that is gone does not
	// answer at all, and another replica may.
	dialTimeout = 5 * time.Second
)

// pool keeps connections to volume servers.
type pool struct {
	// dial connects, and tls is for a closed cluster, whose servers speak https; nil
	// for an open one.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	tls  *tls.Config

	mu struct {
		sync.Mutex
		closed  bool
		servers map[string]*server
		// sweep is set while it runs; it runs while connections are kept.
		sweep *time.Timer
	}
}

// server is one server's part of the pool. INVARIANT: busy holds a token for
// each connection that is not in kept.
type server struct {
	key  string
	busy chan struct{}
	kept []*conn // the one used last is at the end, and is used next
}

// conn is one connection. It belongs to whoever took it from the pool.
type conn struct {
	net.Conn
	// plain is what lies under TLS, or Conn itself. It is what is closed: TLS would
	// first send a farewell, and wait for a server that does not read.
	plain  net.Conn
	pool   *pool
	server *server
	raw    syscall.RawConn // nil where a look at the socket is not possible
	r      *bufio.Reader
	w      *bufio.Writer
	left   int64 // what may still be read
	since  time.Time
}

func newPool(config *tls.Config) *pool {
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"}
	}
	p := &pool{tls: config, dial: (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext}
	p.mu.servers = map[string]*server{}
	return p
}

// get gives a connection; kept says that it was used before. Without reuse it is
// a new one.
func (p *pool) get(ctx context.Context, scheme, host string, reuse bool) (c *conn, kept bool, err error) {
	if scheme != "http" && (scheme != "https" || p.tls == nil) {
		return nil, false, fmt.Errorf("no way to speak %q", scheme)
	}
	s := p.server(scheme + "://" + host)
	select {
	case s.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if reuse {
		for c := p.pop(s); c != nil; c = p.pop(s) {
			if time.Since(c.since) < keptFor && c.healthy() {
				return c, true, nil
			}
			_ = c.Close()
		}
	}
	if c, err = p.connect(ctx, s, scheme, host); err != nil {
		<-s.busy
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, false, err
	}
	return c, false, nil
}

func (p *pool) server(key string) *server {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.servers[key]
	if s == nil {
		s = &server{key: key, busy: make(chan struct{}, maxBusy)}
		p.mu.servers[key] = s
	}
	return s
}

func (p *pool) pop(s *server) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(s.kept)
	if n == 0 {
		return nil
	}
	c := s.kept[n-1]
	s.kept[n-1] = nil
	s.kept = s.kept[:n-1]
	return c
}

func (p *pool) connect(ctx context.Context, s *server, scheme, host string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	plain, err := p.dial(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: plain, plain: plain, pool: p, server: s}
	if sc, ok := plain.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	if scheme == "https" {
		config := p.tls
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName, _, _ = net.SplitHostPort(host)
		}
		secured := tls.Client(plain, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = plain.Close()
			return nil, err
		}
		c.Conn = secured
	}
	c.r, c.w = newReader(c), newWriter(c.Conn)
	return c, nil
}

// Close closes the connection without a farewell.
func (c *conn) Close() error { return c.plain.Close() }

// healthy looks, without waiting, whether the server has closed the connection
// or has said something that nobody asked for; the latter would be taken for the
// next answer. What TLS says by itself after an answer is its farewell; the
// tickets of its beginning came before the first answer and are read.
func (c *conn) healthy() bool {
	if c.raw == nil {
		return true
	}
	ok := false
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ok = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && ok
}

func (c *conn) buffered() int { return c.r.Buffered() }

// keep gives the connection back to the pool.
func (c *conn) keep() {
	defer func() { <-c.server.busy }()
	p := c.pool
	c.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || len(c.server.kept) >= maxKept || p.mu.servers[c.server.key] != c.server {
		_ = c.Close()
		return
	}
	c.server.kept = append(c.server.kept, c)
	if p.mu.sweep == nil {
		p.mu.sweep = time.AfterFunc(keptFor, p.sweep)
	}
}

// discard closes the connection.
func (c *conn) discard() {
	_ = c.Close()
	<-c.server.busy
}

// sweep closes what was kept for too long. Nothing of an idle client is left,
// neither a connection nor a timer, nor a server that is gone.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := 0
	for _, s := range p.mu.servers {
		n := 0
		for _, c := range s.kept { // the oldest come first
			if !p.mu.closed && time.Since(c.since) < keptFor {
				break
			}
			_ = c.Close()
			n++
		}
		s.kept = slices.Delete(s.kept, 0, n)
		if len(s.kept) == 0 && len(s.busy) == 0 { // who waits for it just now goes on, and keeps nothing
			delete(p.mu.servers, s.key)
		}
		rest += len(s.kept)
	}
	p.mu.sweep = nil
	if rest > 0 {
		p.mu.sweep = time.AfterFunc(keptFor/2, p.sweep)
	}
}

// close closes what is kept. What is in use is closed when its exchange ends.
func (p *pool) close() {
	p.mu.Lock()
	p.mu.closed = true
	if p.mu.sweep != nil {
		p.mu.sweep.Stop()
		p.mu.sweep = nil
	}
	p.mu.Unlock()
	p.sweep()
}
