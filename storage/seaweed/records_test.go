package seaweed_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestNewerRecordIsLeftAlone: it is refused, and stays as it was written.
func TestNewerRecordIsLeftAlone(t *testing.T) {
	c, id := open(t), storage.VolumeID("from-the-future")
	body := []byte(`{"version":2,"id":"from-the-future","access":"shared","phase":"ready","tier":"cold"}`)
	if err := c.PutRecord(t.Context(), id, body); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.DeleteRecord(context.WithoutCancel(t.Context()), id) })
	if _, err := c.GetRecord(t.Context(), id); !storage.Is(err, storage.Unsupported) {
		t.Errorf("get: %v, want Unsupported", err)
	}
	if _, err := c.CreateRecord(t.Context(), storage.Record{ID: id, Access: storage.Shared, Phase: storage.Creating}); !storage.Is(err, storage.Exists) {
		t.Errorf("create over it: %v, want Exists", err)
	}
	if got, err := c.RawRecord(t.Context(), id); err != nil || !bytes.Equal(got, body) {
		t.Errorf("it is %s now, %v", got, err)
	}
}
