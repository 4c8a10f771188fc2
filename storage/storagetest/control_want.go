package storagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// The words that the control suites judge by.

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func wantKind(t *testing.T, what string, err error, want storage.Kind) {
	t.Helper()
	if err == nil || storage.KindOf(err) != want {
		t.Errorf("%s = %v (%v), want %v", what, err, storage.KindOf(err), want)
	}
}

// wantContext: the caller's own end passes untouched and is no kind.
func wantContext(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) || storage.KindOf(err) != storage.Other {
		t.Errorf("%s = %v (%v), want context.Canceled without a kind", what, err, storage.KindOf(err))
	}
}
