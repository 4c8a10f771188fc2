package seaweed_test

import (
	"bytes"
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestFilerAndVolumeServersKilled: calls wait for what was killed and succeed,
// nothing acknowledged is lost, and the stream of changes says that it broke.
func TestFilerAndVolumeServersKilled(t *testing.T) {
	name, _ := newBucket(t)
	v := open(t).Volume(name, storage.VolumeID(name))
	ready := make(chan struct{}, 1)
	broke := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		broke <- v.Watcher.Watch(ctx, func() { ready <- struct{}{} }, func(storage.Event) {})
	}()
	<-ready

	deadline := time.Now().Add(8 * time.Second)
	killed := map[string]bool{}
	made := map[storage.Path][]byte{}
	for i := 0; time.Now().Before(deadline) || i < 60; i++ { // a slow machine has its turn too
		for _, p := range weed.Status() {
			if !killed[p.Name] && p.Running && (p.Name == "filer" || p.Name == "volume1" && i > 20) {
				killed[p.Name] = true
				if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		data := []byte(fmt.Sprintf("content %d", i))
		p := storage.Path(fmt.Sprintf("f%d", i))
		c, err := v.Chunks.Write(t.Context(), p, data)
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		e := storage.Entry{Mode: 0o600, Native: true, Inode: uint64(i) + 1<<50, Size: c.Size, Chunks: []storage.Chunk{c}}
		if _, err := v.Files.Create(t.Context(), p, e, false); err != nil {
			t.Fatalf("create %d: %v", i, err)
		}
		made[p] = data
		// A volume whose server is away is waited for; its chunks are not gone.
		if err := v.Chunks.Read(t.Context(), c, make([]byte, len(data)), 0); err != nil {
			t.Fatalf("read %d: %v", i, err)
		}
	}
	if len(killed) != 2 {
		t.Fatalf("killed only %v", killed)
	}
	for p, data := range made {
		e, err := v.Files.Lookup(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, e.Size)
		if err := v.Chunks.Read(t.Context(), e.Chunks[0], got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	t.Logf("%d files while %v were killed", len(made), killed)
	select {
	case err := <-broke:
		if !storage.Is(err, storage.Unavailable) {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream did not notice that the filer died")
	}
}
