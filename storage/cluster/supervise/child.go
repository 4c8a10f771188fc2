package supervise

import (
	"context"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// pipeDelay is how long output is waited for after a child's death: somebody
	// outside its process group may hold the pipe for ever.
	pipeDelay = time.Second
	// busyTries and busyDelay bridge ETXTBSY: a program that was just written
	// cannot be run while another fork, between fork and exec, holds a copy of
	// the descriptor that it was written through.
	busyTries = 50
	busyDelay = 10 * time.Millisecond
)

// child is one life of a process.
type child struct {
	cmd   *exec.Cmd
	pid   int
	since time.Time
	// exited is closed when the child is reaped and its output is complete; exit
	// says how it ended, fixed from then on.
	exited chan struct{}
	exit   string

	mu struct {
		sync.Mutex
		// INVARIANT: while reaped is false, pid is ours.
		reaped bool
	}
}

// fork starts the program. The child's goroutine ends with the child.
func fork(f *forker, spec Spec, out *output) (*child, error) {
	var cmd *exec.Cmd
	var err error
	for range busyTries {
		// A command's own context kills the leader only and forgets the group; we
		// signal ourselves.
		cmd = exec.CommandContext(context.Background(), spec.Path, spec.Args...)
		cmd.Env = append([]string{}, spec.Env...)
		cmd.Dir = spec.Dir
		cmd.Stdout, cmd.Stderr = out, out
		cmd.ExtraFiles = spec.Inherit
		cmd.WaitDelay = pipeDelay
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if spec.User != nil {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: spec.User.UID, Gid: spec.User.GID}
		}
		if err = f.do(cmd.Start); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		time.Sleep(busyDelay)
	}
	if err != nil {
		return nil, storage.Errorf(startKind(err), "%s: cannot be started: %w", spec.Name, err)
	}
	c := &child{cmd: cmd, pid: cmd.Process.Pid, since: time.Now(), exited: make(chan struct{})}
	go c.reap()
	return c, nil
}

func startKind(err error) storage.Kind {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return storage.NotFound
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return storage.Denied
	}
	return storage.Other
}

// reap waits for the leader's end, kills what it left in its group while the
// number is still ours, and takes the exit status.
func (c *child) reap() {
	for {
		// WNOWAIT leaves the zombie: its number is not given away before Wait.
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.mu.Lock()
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	c.mu.reaped = true
	c.mu.Unlock()
	_ = c.cmd.Wait() // its error repeats what ProcessState says
	c.exit = c.cmd.ProcessState.String()
	close(c.exited)
}

// terminate asks the leader to end.
func (c *child) terminate() { c.signal(c.pid, unix.SIGTERM) }

// kill ends the whole group.
func (c *child) kill() { c.signal(-c.pid, unix.SIGKILL) }

func (c *child) signal(to int, s unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.reaped {
		_ = unix.Kill(to, s)
	}
}
