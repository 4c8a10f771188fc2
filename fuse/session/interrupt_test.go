package session_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
)

// hearing is a tree that wants to hear of interrupts.
type hearing struct {
	*sessiontest.Tree
	heard chan uint64
}

func (h hearing) Interrupted(unique uint64) { h.heard <- unique }

// A signalled application's handler is told by its cancel channel, and its file
// system by a call.
func TestInterrupt(t *testing.T) {
	m := mountHere(t)
	tree := sessiontest.New()
	tree.Direct = true
	reading := make(chan struct{}, 10)
	cancelled := make(chan struct{}, 10)
	tree.OnRead = func(cancel <-chan struct{}, _ uint64) fuse.Status {
		reading <- struct{}{}
		<-cancel
		cancelled <- struct{}{}
		return fuse.EINTR
	}
	heard := make(chan uint64, 10)
	m.serve(t, hearing{tree, heard}, session.Options{})

	app := exec.CommandContext(t.Context(), "/proc/self/exe")
	app.Env = append(os.Environ(), "HOLDFAST_TEST_READ="+filepath.Join(m.dir, sessiontest.Name(1)))
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- app.Wait() }()
	expect(t, "the read", reading)
	if err := app.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect(t, "the cancellation", cancelled)
	if unique := expect(t, "the call", heard); unique == 0 {
		t.Error("the call names no request")
	}
	_ = expect(t, "the application's end", exited)
}
