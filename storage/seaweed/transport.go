package seaweed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"
)

// transport speaks HTTP to the volume servers in its caller's goroutine: the
// request is written, then the answer is read, straight into the caller's buffer
// where it is a chunk. net/http's own Transport has two goroutines for each
// connection, so that each 4 KiB read waits for three hand-overs; it lost by the
// figures in storage/DECISIONS.md. What an answer means is still net/http's
// matter: ReadResponse parses it.
//
// The risk accepted: an answer that comes before the request is written is seen
// only then. Volume servers read a request whole before they answer.
type transport struct {
	pool *pool
}

var _ http.RoundTripper = (*transport)(nil)

const (
	// maxHead bounds the head of an answer.
	maxHead = 1 << 20
	// maxInterim bounds the answers of class 1xx before the real one.
	maxInterim = 4
)

// errNoAnswer: a connection that had been kept was closed before the first byte
// of an answer.
var errNoAnswer = errors.New("connection closed before an answer")

// errClosed is what a body says that was closed before its end.
var errClosed = errors.New("body of the answer is closed")

// RoundTrip implements http.RoundTripper. The caller must close the answer's
// body, and ctx governs until then.
//
// A server closes connections that nobody uses, at the moment perhaps when one is
// used again. Such a request is sent once more, on a new connection. It may have
// been carried out: that does no harm, since a chunk is stored under an id of its
// own, the same bytes again, and everything else that is asked of a volume server
// can be repeated.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
		if req.ContentLength < 0 {
			return nil, errors.New("request of unknown length")
		}
	}
	ctx := req.Context()
	c, kept, err := t.pool.get(ctx, req.URL.Scheme, req.URL.Host, true)
	if err != nil {
		return nil, err
	}
	resp, err := c.exchange(ctx, req, kept)
	if !errors.Is(err, errNoAnswer) || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return resp, err
	}
	again := *req
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
		defer func() { _ = again.Body.Close() }()
	}
	if c, _, err = t.pool.get(ctx, req.URL.Scheme, req.URL.Host, false); err != nil {
		return nil, err
	}
	return c.exchange(ctx, &again, false)
}

// exchange sends req and reads the head of the answer. The connection goes back
// to its pool when the body has been read, and is closed after any error.
func (c *conn) exchange(ctx context.Context, req *http.Request, kept bool) (*http.Response, error) {
	// The end of ctx ends whatever the connection waits for.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	fail := func(err error) (*http.Response, error) {
		stop()
		c.discard()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	sendErr := c.send(req)
	c.left = maxHead
	if sendErr != nil {
		// A server that refuses early may close while the request is still being
		// sent. What it said counts, if it is there.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}
	if _, err := c.r.Peek(1); err != nil {
		if sendErr != nil {
			err = sendErr
		}
		if kept && ctx.Err() == nil && !isTimeout(err) {
			return fail(fmt.Errorf("%w: %w", errNoAnswer, err))
		}
		return fail(err)
	}
	var resp *http.Response
	for range maxInterim {
		var err error
		if resp, err = http.ReadResponse(c.r, req); err != nil {
			return fail(err)
		}
		if resp.StatusCode >= http.StatusOK {
			break
		}
	}
	if resp.StatusCode < http.StatusOK {
		return fail(fmt.Errorf("answer of %d interim answers", maxInterim))
	}
	c.left = math.MaxInt64
	resp.Body = &body{
		ReadCloser: resp.Body, ctx: ctx, c: c, stop: stop,
		reusable: sendErr == nil && !resp.Close, left: resp.ContentLength,
	}
	return resp, nil
}

func (c *conn) send(req *http.Request) error {
	for _, s := range []string{req.Method, " ", req.URL.RequestURI(), " HTTP/1.1\r\nHost: ", req.URL.Host, "\r\n"} {
		_, _ = c.w.WriteString(s) // a bufio.Writer keeps its first error for Flush
	}
	if req.Body != nil && req.Body != http.NoBody {
		_, _ = c.w.WriteString("Content-Length: " + strconv.FormatInt(req.ContentLength, 10) + "\r\n")
	}
	if err := req.Header.Write(c.w); err != nil {
		return err
	}
	_, _ = c.w.WriteString("\r\n")
	if req.Body != nil {
		n, err := io.Copy(c.w, req.Body) // no copy: a bytes.Reader writes itself
		if err == nil && n != req.ContentLength {
			err = fmt.Errorf("body of %d bytes, %d announced", n, req.ContentLength)
		}
		if err != nil {
			return err
		}
	}
	return c.w.Flush()
}

// Read reads from the network, within what an answer's head may take.
func (c *conn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("head of the answer is too long")
	}
	n, err := c.Conn.Read(b)
	c.left -= int64(n)
	return n, err
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// body is an answer's body. Its end, or Close, lets the connection go.
type body struct {
	io.ReadCloser
	ctx      context.Context
	c        *conn
	stop     func() bool
	reusable bool
	left     int64 // negative when the server did not say
	ended    error // how it ended; the connection is somebody else's then
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.ended != nil {
		return 0, b.ended
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = b.ctx.Err()
	}
	b.end(err)
	return n, err
}

// Close implements io.Closer. The rest of a short answer is read, if it has come
// already: nobody waits for it.
func (b *body) Close() error {
	if b.ended == nil {
		b.leave()
	}
	return nil
}

func (b *body) leave() {
	if b.left >= 0 && b.left <= int64(b.c.buffered()) {
		_, _ = io.Copy(io.Discard, b) // ends it
	}
	b.end(errClosed)
}

func (b *body) end(err error) {
	if b.ended != nil {
		return
	}
	b.ended = err
	// When stop comes too late, the connection has or gets a deadline that is over.
	if b.stop() && errors.Is(err, io.EOF) && b.reusable && b.c.buffered() == 0 {
		b.c.keep()
		return
	}
	b.c.discard()
}

// newReader and newWriter have room for a small request or answer with its head;
// larger ones pass them by.
func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 16<<10) }
func newWriter(w io.Writer) *bufio.Writer { return bufio.NewWriterSize(w, 8<<10) }
