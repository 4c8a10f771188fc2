package seaweed

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/holdfast-csi/holdfast/storage"
)

// What volume servers answer over HTTP, and what it means.

func authorize(req *http.Request, token string) {
	if token != "" {
		req.Header.Set("Authorization", "BEARER "+token)
	}
}

// answered turns a volume server's refusal into an error.
func answered(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	kind := storage.Unavailable
	switch resp.StatusCode {
	case http.StatusNotFound:
		kind = storage.NotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = storage.Denied
	case http.StatusRequestedRangeNotSatisfiable:
		kind = storage.Corrupt
	case http.StatusBadRequest:
		kind = storage.Invalid
	default:
		if k := textKind(string(text)); k == storage.Full {
			kind = k
		}
	}
	return storage.Errorf(kind, "volume server: %s: %s", resp.Status, bytes.TrimSpace(text))
}

// unreachable classifies a failed exchange: the caller's own end passes, the
// rest is worth another try.
func unreachable(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return storage.Errorf(storage.Unavailable, "volume server: %w", err)
}

// drain lets the connection be used again, or closes it when much is left.
func drain(resp *http.Response) { _ = resp.Body.Close() }
