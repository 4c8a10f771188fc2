package keeper

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// Every kind of failure, and a context's own, comes out as it went in.
func TestFailuresTravel(t *testing.T) {
	for _, k := range storage.Kinds() {
		err := toFailure(fmt.Errorf("around: %w", storage.Errorf(k, "text"))).err()
		if storage.KindOf(err) != k || err.Error() != "around: text" {
			t.Errorf("%v came out as %v: %v", k, storage.KindOf(err), err)
		}
	}
	for _, target := range []error{context.Canceled, context.DeadlineExceeded} {
		if err := toFailure(fmt.Errorf("around: %w", target)).err(); !storage.IsContext(err) {
			t.Errorf("%v came out as %v", target, err)
		}
	}
}

// pair returns two connections that speak to each other.
func pair(t *testing.T, a, b handleFunc) (*conn, *conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*conn
	for i, handle := range []handleFunc{a, b} {
		f := os.NewFile(uintptr(fds[i]), "socket")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = newConn(c.(*net.UnixConn), handle)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = conns[i].run(context.WithoutCancel(t.Context()))
			conns[i].wait()
		}()
		t.Cleanup(func() {
			conns[i].close()
			<-done
		})
	}
	return conns[0], conns[1]
}

// Both sides ask at the same time; a descriptor arrives as one of the same file.
func TestConn(t *testing.T) {
	echo := func(_ context.Context, op string, body json.RawMessage, fds []int) (any, error) {
		defer closeAll(fds)
		if op == "fail" {
			return nil, storage.Errorf(storage.Busy, "not now")
		}
		for _, fd := range fds {
			if _, err := unix.Write(fd, []byte("hello")); err != nil {
				return nil, err
			}
		}
		return body, nil
	}
	a, b := pair(t, echo, echo)
	for _, c := range []*conn{a, b} {
		var got string
		if err := c.call(t.Context(), "echo", "text", &got); err != nil || got != "text" {
			t.Errorf("%q, %v", got, err)
		}
		if err := c.call(t.Context(), "fail", nil, nil); !storage.Is(err, storage.Busy) {
			t.Errorf("%v", err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := a.call(t.Context(), "write", nil, nil, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := r.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := a.call(t.Context(), "echo", strings.Repeat("x", maxMessage), nil); !storage.Is(err, storage.Invalid) {
		t.Errorf("a message that is too long: %v", err)
	}
	b.close()
	if err := a.call(t.Context(), "echo", nil, nil); !storage.Is(err, storage.Unavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

// Who waits has a deadline, and so has who works.
func TestCallDeadline(t *testing.T) {
	ended := make(chan struct{})
	hang := func(ctx context.Context, _ string, _ json.RawMessage, fds []int) (any, error) {
		closeAll(fds)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}
	a, _ := pair(t, nil, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := a.call(ctx, "hang", nil, nil); !storage.IsContext(err) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the work goes on")
	}
}
