package main

import (
	"os"
	"testing"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage"
)

func TestCheckCapabilities(t *testing.T) {
	for name, c := range map[string]struct {
		status string
		kind   storage.Kind
		ok     bool
	}{
		"none":      {status: "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n", ok: true},
		"permitted": {status: "CapPrm:\t0000000000000400\nCapEff:\t0000000000000000\n", kind: storage.Denied},
		"effective": {status: "CapPrm:\t0000000000200000\nCapEff:\t0000000000200000\n", kind: storage.Denied},
		"untold":    {status: "Name:\tx\n", kind: storage.Other},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkCapabilities(c.status)
			if (err == nil) != c.ok || err != nil && storage.KindOf(err) != c.kind {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestServeRefusesRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root, so there is nothing to refuse")
	}
	for _, command := range []string{"serve", "worker"} {
		err := run(t.Context(), []string{command, "--filer", "localhost:1"}, t.Output(), t.Output())
		if !storage.Is(err, storage.Denied) {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// The keeper tells the kernel how large a read may be, the session how large a
// buffer is.
func TestKeeperAndSessionAgree(t *testing.T) {
	if keeper.MaxRead != session.MaxWrite {
		t.Errorf("max_read is %d, a session's buffers hold %d", keeper.MaxRead, session.MaxWrite)
	}
}
