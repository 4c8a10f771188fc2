package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

// A PID 1 must wait for every process that is re-parented to it, and wait4(-1)
// would take the ends that exec.Cmd.Wait waits for. So one loop waits for all,
// and tells the few who asked.

// children starts processes and reaps them, and orphans too.
type children struct {
	mu      sync.Mutex
	waiting map[int]chan<- syscall.WaitStatus
}

// newChildren begins to reap. Only a PID 1 calls it, once.
func newChildren() *children {
	c := &children{waiting: map[int]chan<- syscall.WaitStatus{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			c.reap()
		}
	}()
	return c
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ch := c.waiting[pid]; ch != nil {
			delete(c.waiting, pid)
			ch <- status
		}
	}
}

// Commands here have no context to end with: what ends them is the end of their
// PID namespace.

// start runs cmd, whose output must be files. The channel gets its end.
func (c *children) start(cmd *exec.Cmd) (<-chan syscall.WaitStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	c.waiting[cmd.Process.Pid] = ended
	return ended, nil
}

// run runs cmd to its end; what it printed is part of the error.
func (c *children) run(name string, args ...string) error {
	out, err := os.CreateTemp("", "holdfast-e2e-")
	if err != nil {
		return err
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		return err
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := c.start(cmd)
	if err != nil {
		return err
	}
	if status := <-ended; status != 0 {
		said := make([]byte, 4096)
		n, _ := out.ReadAt(said, 0)
		return fmt.Errorf("%s: %s\n%s", cmd, describe(status), said[:n])
	}
	return nil
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "ended by signal " + status.Signal().String()
	}
	return fmt.Sprintf("ended with exit status %d", status.ExitStatus())
}
