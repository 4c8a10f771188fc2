package seaweed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a server whose connections are served by serve, one after the
// other; conns counts them.
func scripted(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) (url string, conns *atomic.Int64) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns = &atomic.Int64{}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(conns.Add(1))
			group.Go(func() {
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	return "http://" + l.Addr().String() + "/3,01637037d6", conns
}

func newTransport(t *testing.T) *transport {
	tr := &transport{newPool(nil)}
	t.Cleanup(tr.pool.close)
	return tr
}

// ask makes one exchange and reads the answer.
func ask(ctx context.Context, tr *transport, method, url, body string) (int, string, error) {
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return 0, "", err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer drain(resp)
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), err
}

// idle fails the test unless every token is back: each exchange let its
// connection go.
func idle(t *testing.T, tr *transport) {
	t.Helper()
	tr.pool.mu.Lock()
	defer tr.pool.mu.Unlock()
	for key, s := range tr.pool.mu.servers {
		if n := len(s.busy); n != 0 {
			t.Errorf("%d connections to %s are not given back", n, key)
		}
	}
}

// echo answers requests with their method, path and body until the client goes.
func echo(c net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		text := req.Method + " " + req.URL.RequestURI() + " " + string(body)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
			return
		}
	}
}

// TestConnectionIsUsedAgain: one connection serves what is asked in turn, and the
// pool is bounded for what is asked at once.
func TestConnectionIsUsedAgain(t *testing.T) {
	url, conns := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) { echo(c, r) })
	tr := newTransport(t)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for i := range 50 {
		body := big[:i*i*100]
		code, got, err := ask(t.Context(), tr, http.MethodPut, url+"?fsync=true", body)
		if want := "PUT /3,01637037d6?fsync=true " + body; err != nil || code != 200 || got != want {
			t.Fatalf("%d: %d, %d bytes of %d, %v", i, code, len(got), len(want), err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	var group sync.WaitGroup
	for range 2 * maxBusy {
		group.Go(func() {
			if _, _, err := ask(t.Context(), tr, http.MethodGet, url, ""); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := conns.Load(); n > maxBusy {
		t.Errorf("%d connections, at most %d are allowed", n, maxBusy)
	}
	idle(t, tr)
}

// TestServerClosesKept: a connection that the server closed while it was kept, or
// when it is used again, costs a new one and no error.
func TestServerClosesKept(t *testing.T) {
	const answer = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
	for name, serve := range map[string]func(c net.Conn, r *bufio.Reader){
		"at once": func(c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, answer)
		},
		"with the next request": func(c net.Conn, r *bufio.Reader) {
			req, _ := http.ReadRequest(r)
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, answer)
			_, _ = r.ReadByte()
		},
		"after the next request": func(c net.Conn, r *bufio.Reader) {
			for i := range 2 {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				if i == 0 {
					_, _ = io.WriteString(c, answer)
				}
			}
		},
		"with bytes that nobody asked for": func(c net.Conn, r *bufio.Reader) {
			req, _ := http.ReadRequest(r)
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, answer+"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
			_, _ = r.ReadByte()
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, conns := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) { serve(c, r) })
			tr := newTransport(t)
			for i := range 10 {
				if code, got, err := ask(t.Context(), tr, http.MethodPut, url, "content"); err != nil || code != 201 || got != "ok" {
					t.Fatalf("%d: %d %q %v", i, code, got, err)
				}
			}
			if n := conns.Load(); n < 5 {
				t.Errorf("%d connections: the server's closing was not tried", n)
			}
			idle(t, tr)
		})
	}
}

// TestLateBytes: what a server says on a connection that nobody uses is not the
// answer to the next request.
func TestLateBytes(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
	kept, said := make(chan struct{}), make(chan struct{})
	url, _ := scripted(t, func(n int, c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, answer+"right")
		if n == 1 {
			<-kept
			_, _ = io.WriteString(c, answer+"wrong")
			close(said)
		}
		_, _ = r.ReadByte()
	})
	tr := newTransport(t)
	for i := range 2 {
		if _, got, err := ask(t.Context(), tr, http.MethodGet, url, ""); err != nil || got != "right" {
			t.Errorf("%d: %q %v", i, got, err)
		}
		if i == 0 {
			close(kept)
			<-said
		}
	}
}

// TestServerClosesNew: no second try on a connection that was new, or that has
// begun to answer.
func TestServerClosesNew(t *testing.T) {
	for i, part := range []string{"", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"} {
		for _, kept := range []bool{false, true} {
			if kept && part == "" {
				continue
			}
			url, conns := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if kept {
					_, _ = http.ReadRequest(r)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
				_, _ = http.ReadRequest(r)
				_, _ = io.WriteString(c, part)
			})
			tr := newTransport(t)
			if kept {
				if _, _, err := ask(t.Context(), tr, http.MethodGet, url, ""); err != nil {
					t.Fatal(err)
				}
			}
			if code, got, err := ask(t.Context(), tr, http.MethodGet, url, ""); err == nil {
				t.Errorf("%d: %d %q and no error", i, code, got)
			}
			if n := conns.Load(); n != 1 {
				t.Errorf("%d: %d connections", i, n)
			}
			idle(t, tr)
		}
	}
}

// TestMalformedAnswers: none is taken for an answer, none hangs, and the
// connection is not used again.
func TestMalformedAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, answer := range []string{
		"garbage\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "\r\n\r\n", "\x00\x01\x02",
		ok + "Content-Length: -1\r\n\r\n", ok + "Content-Length: x\r\n\r\n", ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		ok + "No colon\r\n\r\n", ok + " : x\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
		ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", ok + "Transfer-Encoding: strange\r\n\r\n",
		ok + "A: " + strings.Repeat("a", 2*maxHead) + "\r\n\r\n",
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + ok + "Content-Length: 0\r\n\r\n",
		ok + "Content-Length: 9223372036854775807\r\n\r\nab",
	} {
		url, conns := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, answer)
		})
		tr := newTransport(t)
		for range 2 {
			if code, got, err := ask(t.Context(), tr, http.MethodGet, url, ""); err == nil {
				t.Errorf("%.60q: %d %.60q and no error", answer, code, got)
			}
		}
		if n := conns.Load(); n != 2 {
			t.Errorf("%.60q: %d connections", answer, n)
		}
		idle(t, tr)
	}
}

// TestWellFormedAnswers: what HTTP allows, and whether the connection is kept.
func TestWellFormedAnswers(t *testing.T) {
	for _, tt := range []struct {
		answer, want string
		kept         bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		{"HTTP/1.1 204 No Content\r\n\r\n", "", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", true},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"HTTP/1.1 200 OK\r\n\r\nok", "ok", false}, // until it closes
		{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false},
	} {
		url, conns := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, tt.answer)
				if !tt.kept {
					return
				}
			}
		})
		tr := newTransport(t)
		for range 3 {
			if _, got, err := ask(t.Context(), tr, http.MethodGet, url, ""); err != nil || got != tt.want {
				t.Errorf("%q: %q %v", tt.answer, got, err)
			}
		}
		if n := conns.Load(); tt.kept != (n == 1) {
			t.Errorf("%q: %d connections", tt.answer, n)
		}
		idle(t, tr)
	}
}

// TestSlowServer: the caller's deadline or cancellation ends a wait at each step,
// with the context's own error.
func TestSlowServer(t *testing.T) {
	for name, begin := range map[string]string{
		"before the head": "", "in the head": "HTTP/1.1 200 OK\r\nConte", "before the body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
		"in the body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
	} {
		for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
			t.Run(name+", "+cause.Error(), func(t *testing.T) {
				reached := make(chan struct{})
				url, _ := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
					_, _ = http.ReadRequest(r)
					_, _ = io.WriteString(c, begin)
					close(reached)
					_, _ = r.ReadByte() // until the client goes
				})
				tr := newTransport(t)
				ctx, cancel := context.WithCancel(t.Context())
				if errors.Is(cause, context.DeadlineExceeded) {
					ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				}
				defer cancel()
				if errors.Is(cause, context.Canceled) {
					go func() { <-reached; cancel() }()
				}
				if _, _, err := ask(ctx, tr, http.MethodGet, url, ""); !errors.Is(err, cause) {
					t.Errorf("got %v", err)
				}
				idle(t, tr)
			})
		}
	}
}

// TestServerDoesNotRead: a deadline ends an upload that nobody takes.
func TestServerDoesNotRead(t *testing.T) {
	done := make(chan struct{})
	url, _ := scripted(t, func(int, net.Conn, *bufio.Reader) { <-done })
	defer close(done)
	tr := newTransport(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx, tr, http.MethodPut, url, strings.Repeat("x", 64<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	idle(t, tr)
}

// TestEarlyRefusal: what a server says before it has read all counts.
func TestEarlyRefusal(t *testing.T) {
	url, _ := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	})
	if code, got, err := ask(t.Context(), newTransport(t), http.MethodPut, url, strings.Repeat("x", 8<<20)); err != nil || code != 401 || got != "no" {
		t.Errorf("%d %q %v", code, got, err)
	}
}

// TestServersAreForgotten: a server that nothing was asked of for a while is no longer
// remembered, and a connection to it that was just being made is not kept behind.
func TestServersAreForgotten(t *testing.T) {
	url, _ := scripted(t, func(_ int, c net.Conn, r *bufio.Reader) { echo(c, r) })
	tr := newTransport(t)
	if _, _, err := ask(t.Context(), tr, http.MethodGet, url, ""); err != nil {
		t.Fatal(err)
	}
	host := strings.Split(url, "/")[2]
	p, s := tr.pool, tr.pool.server("http://"+host)
	p.sweep()
	if p.server("http://"+host) != s {
		t.Error("a server is forgotten while a connection to it is kept")
	}
	p.mu.Lock()
	for _, c := range s.kept {
		c.since = c.since.Add(-keptFor)
	}
	p.mu.Unlock()
	p.sweep()
	if n := len(p.mu.servers); n != 0 {
		t.Errorf("%d servers are remembered", n)
	}
	s.busy <- struct{}{}
	c, err := p.connect(t.Context(), s, "http", host)
	if err != nil {
		t.Fatal(err)
	}
	c.keep()
	if len(s.kept) != 0 {
		t.Error("a connection is kept where nobody will close it")
	}
}

// TestNothingIsLeft: exchanges that ended well, badly and by cancellation leave
// no goroutine, and a closed pool no connection.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	url, _ := scripted(t, func(n int, c net.Conn, r *bufio.Reader) {
		if n%3 == 0 {
			return
		}
		echo(c, r)
	})
	tr := newTransport(t)
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			_, _, _ = ask(ctx, tr, http.MethodPut, url, strings.Repeat("x", i*1000))
		})
	}
	group.Wait()
	idle(t, tr)
	tr.pool.close()
	deadline := time.Now().Add(30 * time.Second)
	for runtime.NumGoroutine() > before+1 { // the listener's own
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}
