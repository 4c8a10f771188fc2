package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
)

// The keeper and the mounter outlive the one who starts them, so they have a
// session of their own and write into their logs themselves: a pipe to us would
// break with us. supervise is for children that shall die with their parent.

// detachedLogMax is when a log is moved aside at the start of its process. The
// two say little.
const detachedLogMax = 10 << 20

// detached is how one of them is started.
type detached struct {
	name string
	path string
	args []string
	user *state.Account // nil: as we are
	// here keeps it in the terminal's session, in the background: sudo knows a
	// person by the terminal.
	here bool
}

// start starts it and notes who it is. The process is reaped if it dies while we
// live.
func (d detached) start(ctx context.Context, dir state.Dir) (process.ID, error) {
	log, err := openLog(dir.Log(d.name))
	if err != nil {
		return process.ID{}, err
	}
	defer func() { _ = log.Close() }()
	// It is not ours to end when ctx does.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), d.path, d.args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: !d.here, Setpgid: d.here}
	if d.user != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(d.user.UID), Gid: uint32(d.user.GID)}
	}
	if err := cmd.Start(); err != nil {
		return process.ID{}, fmt.Errorf("start %s: %w", d.name, err)
	}
	id, err := process.Of(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }()
	if err != nil {
		return process.ID{}, fmt.Errorf("%s ended at once; %s says why", d.name, dir.Log(d.name))
	}
	return id, note(dir, d.name, id)
}

func pidFile(dir state.Dir, name string) string { return dir.RunFile(name + ".pid") }

// note writes down who runs under name.
func note(dir state.Dir, name string, id process.ID) error {
	return state.WriteJSON(pidFile(dir, name), id, 0o644)
}

// noted returns the process that was noted under name, if it still lives.
func noted(dir state.Dir, name string) (process.ID, bool) {
	var id process.ID
	if err := state.ReadJSON(pidFile(dir, name), &id); err != nil {
		return process.ID{}, false
	}
	return id, id.Alive()
}

// forgetPID removes the note.
func forgetPID(dir state.Dir, name string) error {
	if err := os.Remove(pidFile(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// end asks a process to end, waits, and kills it after grace.
func end(ctx context.Context, id process.ID, grace time.Duration) error {
	if err := id.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if id.Wait(patience) == nil {
		return nil
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if id.Wait(last) != nil {
		return fmt.Errorf("process %d cannot be killed", id.PID)
	}
	return nil
}

// openLog opens a log for appending.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > detachedLogMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
}
