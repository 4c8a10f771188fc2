package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// A session that is slow, or whose mounter is, is told from one that has ended, and
// nothing is done to it.
func TestHealth(t *testing.T) {
	r := up(t)
	_, err := r.node.Health(t.Context(), "one")
	r.want(err, storage.NotFound, "one")
	target := r.mount("one", config{Uncached: true})
	h, err := r.node.Health(t.Context(), "one")
	r.must(err)
	if !h.Serving || h.Dead || h.Silent != "" || h.Waiting != 0 || string(h.Report) != `{"id":"one"}` {
		t.Errorf("healthy: %+v %s", h, h.Report)
	}

	signal := func(s syscall.Signal) { r.must(r.mounter.cmd.Process.Signal(s)) }
	signal(syscall.SIGSTOP)
	// Its threads go on, and answer, until each has got a processor.
	r.eventually("the mounter stands", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.mounter.cmd.Process.Pid))
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err != nil || !strings.Contains(string(stat), ") T ")
		})
	})
	done := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(target, sessiontest.Name(2)))
		done <- err
	}()
	r.eventually("a request waits", func() bool {
		h, err = r.node.Health(t.Context(), "one")
		return err == nil && h.Waiting > 0
	})
	if !h.Serving || h.Dead || !strings.Contains(h.Silent, "does not answer") {
		t.Errorf("frozen: %+v", h)
	}
	signal(syscall.SIGCONT)
	r.must(within(t, "read", func() (error, error) { return <-done, nil }))
	r.works(target, 1)

	r.mounter.kill(t)
	r.eventually("nobody serves", func() bool {
		h, err = r.node.Health(t.Context(), "one")
		return err == nil && !h.Serving
	})
	if h.Dead || len(r.mounts()) != 1 {
		t.Errorf("not served: %+v, %d mounts", h, len(r.mounts()))
	}
	r.startMounter()
	r.serving()
	r.works(target, 1)

	// Detached behind our back: the session has ended, for good.
	r.must(unix.Unmount(target, unix.MNT_DETACH))
	r.eventually("the session has ended", func() bool {
		h, err = r.node.Health(t.Context(), "one")
		return storage.Is(err, storage.NotFound) || err == nil && h.Dead && !h.Serving
	})
}
