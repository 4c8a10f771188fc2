package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// The keeper is the one process that needs root. An ordinary user starts it with
// sudo and cannot signal it afterwards: it is found, asked and ended through its
// socket.

const (
	keeperName = "keeper"
	// keeperStart is for a slow machine and a person's password.
	keeperStart = time.Minute
	keeperStop  = 20 * time.Second
	pollEvery   = 20 * time.Millisecond
)

// keeperOf is the client of a state's keeper.
func keeperOf(dir state.Dir) *keeper.Node { return keeper.NewNode(keeper.NodeSocket(dir.Run())) }

// keeperID returns the process that listens on the keeper's socket.
func keeperID(ctx context.Context, dir state.Dir) (process.ID, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := keeperOf(dir).Sessions(ctx); err != nil {
		return process.ID{}, false
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", keeper.NodeSocket(dir.Run()))
	if err != nil {
		return process.ID{}, false
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return process.ID{}, false
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || peerErr != nil {
		return process.ID{}, false
	}
	id, err := process.Of(int(peer.Pid))
	return id, err == nil
}

// startKeeper starts the keeper unless it runs. ask allows sudo to ask for a
// password on the terminal.
func startKeeper(ctx context.Context, o Options, mount string, ask bool) error {
	if id, ok := keeperID(ctx, o.Dir); ok {
		return note(o.Dir, keeperName, id)
	}
	accounts := o.accounts()
	args := []string{
		"keeper",
		"--run-dir", o.Dir.Run(),
		"--node-uid", strconv.Itoa(accounts.Node.UID),
		"--mounter-uid", strconv.Itoa(accounts.Mounter.UID),
	}
	for _, root := range allowRoots(o.Dir) {
		args = append(args, "--allow-root", root)
	}
	if o.NoSlots {
		args = append(args, "--without-slots")
	}
	d := detached{name: keeperName, path: mount, args: args}
	if os.Getuid() != 0 {
		if err := d.throughSudo(ctx, ask); err != nil {
			return err
		}
	}
	started, err := d.start(ctx, o.Dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, keeperStart)
	defer cancel()
	return supervise.Poll(ctx, pollEvery, func(ctx context.Context) error {
		// Under sudo it is another process than the one that was started.
		if id, ok := keeperID(ctx, o.Dir); ok {
			return note(o.Dir, keeperName, id)
		}
		if !started.Alive() {
			cancel()
			return fmt.Errorf("the keeper ended at once: %s", lastLine(o.Dir.Log(keeperName)))
		}
		return errors.New("the keeper does not answer in time")
	})
}

// throughSudo lets sudo start it. Where a person is there, sudo may ask.
func (d *detached) throughSudo(ctx context.Context, ask bool) error {
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("the keeper, which mounts, needs root, and there is no sudo: install it, or run holdfast as root")
	}
	program := d.path
	d.path, d.args = sudo, append([]string{"-n", "--", program}, d.args...)
	// In a session of its own, as it will run: a password given on a terminal
	// does not count there.
	try := exec.CommandContext(ctx, sudo, "-n", "--", program, keeperName, "--help")
	try.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if try.Run() == nil {
		return nil
	}
	if ask {
		login := exec.CommandContext(ctx, sudo, "-v", "-p", "holdfast: the keeper, which mounts, needs root. Password of %p: ")
		login.Stdin, login.Stdout, login.Stderr = os.Stdin, os.Stderr, os.Stderr
		if login.Run() == nil {
			d.here = true
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the keeper, which mounts, needs root, and sudo does not let you run `%s keeper` without a password: use a terminal, or allow it in sudoers", program)
}

// stopKeeper asks the keeper to end. Without one there is nothing to do.
func stopKeeper(ctx context.Context, dir state.Dir) error {
	id, ok := keeperID(ctx, dir)
	if !ok {
		return forgetPID(dir, keeperName)
	}
	ctx, cancel := context.WithTimeout(ctx, keeperStop)
	defer cancel()
	if err := keeperOf(dir).Shutdown(ctx); err != nil && !storage.Is(err, storage.Unavailable) {
		return fmt.Errorf("stop the keeper: %w", err)
	}
	if err := id.Wait(ctx); err != nil {
		return fmt.Errorf("the keeper (pid %d) does not end: %w", id.PID, err)
	}
	return forgetPID(dir, keeperName)
}

// systemFolders at the top are no places for a volume.
var systemFolders = map[string]bool{
	"/bin": true, "/boot": true, "/dev": true, "/etc": true, "/lib": true, "/lib32": true, "/lib64": true,
	"/libx32": true, "/proc": true, "/sbin": true, "/sys": true, "/usr": true,
}

// allowRoots are the folders below which the keeper mounts. An ordinary user has
// the folders of its own in any case.
func allowRoots(dir state.Dir) []string {
	roots := []string{dir.Staging()}
	if os.Getuid() != 0 {
		return roots
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return roots
	}
	for _, e := range entries {
		if path := filepath.Join("/", e.Name()); e.IsDir() && !systemFolders[path] {
			roots = append(roots, path)
		}
	}
	return roots
}

// lastLine of a log, for an error.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
