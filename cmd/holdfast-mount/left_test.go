package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// TestEndOfWhatAnotherServed: a worker that is asked to end a session which its
// predecessor died with brings to the store what that one had acknowledged. Before, it
// said that all was safe, and the next node did not see it.
func TestEndOfWhatAnotherServed(t *testing.T) {
	config := []byte(`{"volume":"vol"}`)
	for what, ending := range map[string]keeper.Ending{
		"the keeper knows it":      {ID: "vol", Serial: "1", Config: config},
		"nobody knows it any more": {ID: "vol"},
	} {
		t.Run(what, func(t *testing.T) { testEndOfWhatAnotherServed(t, config, ending) })
	}
}

func testEndOfWhatAnotherServed(t *testing.T, config []byte, ending keeper.Ending) {
	volumes := t.TempDir()
	bucket := memory.NewBucket(1 << 30)
	var away error
	open := func(_ context.Context, g keeper.Grant) (fileSystem, error) {
		if away != nil {
			return nil, away
		}
		if !bytes.Equal(g.Config, config) {
			t.Errorf("opened with %q", g.Config)
		}
		dir, err := volumeFolder(volumes, g.ID)
		if err != nil {
			return nil, err
		}
		fs := fuse.New(bucket.Volume(), fuse.Options{Dir: dir, Fresh: g.InitReply == nil})
		noteConfig(dir, g, slog.New(slog.DiscardHandler))
		return retiring{healthy{fs, &health{}}, dir}, fs.Recover() //nolint:contextcheck // bounded by its own deadline
	}
	s := &server{
		open: open, left: func(e keeper.Ending) (keeper.Ending, bool, error) { return leftOf(volumes, e) },
		log: slog.New(slog.DiscardHandler), pools: session.NewPools(session.SlotOptions{}),
	}
	if err := s.End(t.Context(), ending); err != nil {
		t.Errorf("the end of what nobody has served: %v", err)
	}

	fs, err := open(t.Context(), keeper.Grant{ID: "vol", Config: config})
	if err != nil {
		t.Fatal(err)
	}
	var made gofuse.CreateOut
	in := gofuse.InHeader{NodeId: 1, Unique: 2}
	if st := fs.Create(nil, &gofuse.CreateIn{InHeader: in, Flags: uint32(os.O_RDWR), Mode: 0o644}, "file", &made); !st.Ok() {
		t.Fatal(st)
	}
	want := bytes.Repeat([]byte("acknowledged "), 10_000)
	in = gofuse.InHeader{NodeId: made.NodeId, Unique: 4}
	if n, st := fs.Write(nil, &gofuse.WriteIn{InHeader: in, Fh: made.Fh, Size: uint32(len(want))}, want); !st.Ok() || int(n) != len(want) {
		t.Fatalf("%d bytes, %v", n, st)
	}
	if err := fs.Abandon(); err != nil { // as a death leaves it
		t.Fatal(err)
	}

	away = storage.Errorf(storage.Unavailable, "as the test wants")
	if err := s.End(t.Context(), ending); !storage.Is(err, storage.Unavailable) {
		t.Errorf("the end while the store is away: %v", err)
	}
	away = nil
	if err := s.End(t.Context(), ending); err != nil {
		t.Fatal(err)
	}
	e, err := bucket.Volume().Files.Lookup(t.Context(), "file")
	if err != nil || e.Size != int64(len(want)) {
		t.Fatalf("%d bytes are in the store, %d were acknowledged: %v", e.Size, len(want), err)
	}
	got := make([]byte, e.Size)
	if err := bucket.Volume().Chunks.Read(t.Context(), e.Chunks[0], got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes than were written: %v", err)
	}
	if _, err := os.Stat(filepath.Join(volumes, "vol")); !os.IsNotExist(err) {
		t.Errorf("the session's folder: %v", err)
	}
	if err := s.End(t.Context(), ending); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestConfigIsNotedOnce: who takes a session over does not make applications wait for a
// file that is there, and writes the one of a mounter that had none.
func TestConfigIsNotedOnce(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	path := filepath.Join(dir, configFile)
	first, later := keeper.Grant{Config: []byte(`{"volume":"a"}`)}, keeper.Grant{Config: []byte(`{"volume":"a"}`), InitReply: []byte{1}}
	noted := func(g keeper.Grant) os.FileInfo {
		t.Helper()
		noteConfig(dir, g, log)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	one := noted(first)
	if again := noted(later); !os.SameFile(one, again) {
		t.Error("a take-over wrote it again")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	noted(later)
}
