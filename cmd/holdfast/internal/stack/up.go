package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// commandWait is how long an up or a down waits for another one.
const commandWait = 2 * time.Minute

// Begin makes a state ready to be started: folder, weed, keeper. What a person
// must see or answer (a download, a password) happens here, on the terminal. The
// returned Options name the weed that was found.
func Begin(ctx context.Context, o Options, ask bool) (Options, error) {
	mount, err := FindMount()
	if err != nil {
		return o, err
	}
	weed, err := cluster.FindWeed(ctx, o.FindOptions())
	if err != nil {
		return o, err
	}
	o.Weed = weed
	if os.Getuid() == 0 {
		return o, nil // the supervisor can start the keeper itself
	}
	return o, startKeeper(ctx, o, mount, ask)
}

// Exclusive runs do while no other up or down works with the state.
func Exclusive(ctx context.Context, dir state.Dir, do func() error) error {
	wait, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	var lock *state.Lock
	err := supervise.Poll(wait, pollEvery, func(context.Context) (err error) {
		lock, err = dir.TryLock(state.Command)
		if err != nil && !errors.Is(err, state.ErrLocked) {
			cancel()
		}
		return err
	})
	switch {
	case errors.Is(err, state.ErrLocked):
		return fmt.Errorf("another holdfast up or down works with state %s", dir)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the installation in %s was just deleted", dir)
	}
	if err != nil {
		return err
	}
	return errors.Join(do(), lock.Unlock())
}

// Up starts the supervisor in the background and returns when all works. When it
// fails, or ctx ends, nothing is left running.
func Up(ctx context.Context, o Options) (Status, error) {
	id, err := background(ctx, o)
	if err != nil {
		return Status{}, err
	}
	status, err := follow(ctx, o, id)
	if err == nil || ctx.Err() == nil {
		return status, err
	}
	// The person has left: take back what was begun.
	o.report(0, 0, "Interrupted, stopping what was started")
	if err := id.Signal(syscall.SIGTERM); err != nil {
		return status, err
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if id.Wait(patience) != nil {
		return status, fmt.Errorf("the supervisor (pid %d) does not end; see %s", id.PID, o.Dir.Log("supervisor"))
	}
	return status, errors.New("interrupted; nothing is left running")
}

// background starts this program again as the supervisor, in a session of its
// own.
func background(ctx context.Context, o Options) (process.ID, error) {
	// What an earlier one said must not be taken for this one's.
	if err := os.Remove(statusFile(o.Dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return process.ID{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return process.ID{}, err
	}
	args := []string{"up", "--foreground", "--state", string(o.Dir)}
	if o.PortBase != 0 {
		args = append(args, "--port-base", strconv.Itoa(o.PortBase))
	}
	if o.S3TLS != nil {
		args = append(args, "--s3-tls="+strconv.FormatBool(*o.S3TLS))
	}
	out, err := os.Create(o.Dir.Log("supervisor-output"))
	if err != nil {
		return process.ID{}, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), EnvWeed+"="+o.Weed)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return process.ID{}, err
	}
	id, err := process.Of(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return process.ID{}, fmt.Errorf("the supervisor ended at once: %s", lastLine(out.Name()))
	}
	return id, nil
}

// follow reports the steps of a start until it has succeeded or failed.
func follow(ctx context.Context, o Options, id process.ID) (Status, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	said := 0
	for {
		alive := id.Alive() // before the status: its last word comes before its end
		status, err := ReadStatus(o.Dir)
		if err != nil {
			return Status{}, err
		}
		for ; said < len(status.Warnings); said++ {
			o.report(0, 0, "Note: "+status.Warnings[said])
		}
		switch {
		case status.Phase == Ready:
			return status, nil
		case status.Phase == Failed:
			return status, errors.New(status.Error)
		case !alive:
			return status, fmt.Errorf("the supervisor ended before all was ready: %s", lastLine(o.Dir.Log("supervisor-output")))
		case status.Doing != "":
			o.report(status.Step, status.Steps, status.Doing)
		}
		select {
		case <-ctx.Done():
			return status, ctx.Err()
		case <-tick.C:
		}
	}
}

// Join waits until a start that another has begun is over.
func Join(ctx context.Context, o Options, s Status) (Status, error) {
	return follow(ctx, o, s.Supervisor)
}
