package s3client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestCodeKinds sends every code of the table over the wire, with a status that
// says something else, and a code that is not in the table.
func TestCodeKinds(t *testing.T) {
	for code, kind := range codeKinds {
		if got := kindOfAnswer(t, 418, code); got != kind {
			t.Errorf("%s → %v, want %v", code, got, kind)
		}
	}
	for status, kind := range statusKinds {
		if got := kindOfAnswer(t, status, "NeverHeardOf"); got != kind {
			t.Errorf("HTTP %d → %v, want %v", status, got, kind)
		}
	}
}

// TestHeadHasOnlyAStatus: an answer without a body.
func TestHeadHasOnlyAStatus(t *testing.T) {
	status := 0
	c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
	for _, status = range []int{403, 503, 418} {
		_, err := c.BucketExists(t.Context(), "bucket")
		if err == nil || storage.KindOf(err) != statusKinds[status] {
			t.Errorf("HTTP %d → %v (%v)", status, err, storage.KindOf(err))
		}
	}
	status = 404
	if exists, err := c.BucketExists(t.Context(), "bucket"); exists || err != nil {
		t.Errorf("HTTP 404 → %v, %v", exists, err)
	}
}

func TestRefusedConnectionIsUnavailable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c := mustNew(t, Options{Endpoint: server.URL, Attempts: 1})
	_, err := c.BucketExists(t.Context(), "bucket")
	if !storage.Is(err, storage.Unavailable) {
		t.Errorf("err = %v (%v)", err, storage.KindOf(err))
	}
}

// TestOurDeadlineIsNotTheCallers: a silent server is Unavailable, and no caller
// takes that for the end of its own context.
func TestOurDeadlineIsNotTheCallers(t *testing.T) {
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stop) })
	c := mustNew(t, Options{Endpoint: server.URL, Attempts: 2, Attempt: 20 * time.Millisecond})
	_, err := c.BucketExists(t.Context(), "bucket")
	if !storage.Is(err, storage.Unavailable) || storage.IsContext(err) {
		t.Errorf("err = %v (%v)", err, storage.KindOf(err))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = c.BucketExists(ctx, "bucket")
	if !errors.Is(err, context.DeadlineExceeded) || storage.KindOf(err) != storage.Other {
		t.Errorf("err = %v (%v), want the caller's deadline", err, storage.KindOf(err))
	}
}

// TestOnlyUnavailableIsRetried counts the attempts.
func TestOnlyUnavailableIsRetried(t *testing.T) {
	for _, kind := range storage.Kinds() {
		synctest.Test(t, func(t *testing.T) {
			c, calls := &Client{attempt: time.Second, attempts: 4}, 0
			err := c.do(t.Context(), "try", "it", func(context.Context) error {
				calls++
				return storage.Errorf(kind, "no")
			})
			want := 1
			if kind == storage.Unavailable {
				want = 4
			}
			if calls != want || storage.KindOf(err) != kind {
				t.Errorf("%v: %d calls and %v, want %d", kind, calls, err, want)
			}
		})
	}
}

func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{attempt: time.Second, attempts: 1000}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := c.do(ctx, "try", "it", func(context.Context) error { return storage.Errorf(storage.Unavailable, "no") })
		if !errors.Is(err, context.DeadlineExceeded) || storage.KindOf(err) != storage.Other {
			t.Errorf("err = %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{},
		{Endpoint: "127.0.0.1:8333"},
		{Endpoint: "ftp://host"},
		{Endpoint: "http://host", Keys: storage.Keys{Access: "only"}},
		{Endpoint: "http://host", Attempts: -1},
	} {
		if _, err := New(o); !storage.Is(err, storage.Invalid) {
			t.Errorf("New(%+v) = %v", o, err)
		}
	}
}

func kindOfAnswer(t *testing.T, status int, code string) storage.Kind {
	t.Helper()
	c := clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message></Error>`, code)
	})
	err := c.CreateBucket(t.Context(), "bucket")
	if err == nil {
		t.Fatalf("%d %s: no error", status, code)
	}
	return storage.KindOf(err)
}

func clientOf(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return mustNew(t, Options{Endpoint: server.URL, Attempts: 1})
}

func mustNew(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
