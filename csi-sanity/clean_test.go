package csisanity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// This file takes an installation away whatever has happened, and proves that
// nothing of it is left. It kills only processes that name the state's folder,
// unmounts only below it, and deletes only when nothing is mounted there.

// close stops the installation and deletes it.
func (in *installation) close() error {
	defer in.release()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	root := filepath.Dir(in.dir)
	downErr := in.down(ctx, "--delete-data", "--yes")
	if downErr == nil {
		downErr = in.nothingLeft()
	}
	if downErr != nil {
		in.killAll()
		detachAll(root)
		_ = poll(ctx, 10*time.Second, in.noProcess)
	}
	mounts, err := mountsBelow(root)
	if err != nil || len(mounts) > 0 {
		return errors.Join(downErr, err, fmt.Errorf("still mounted: %v", mounts))
	}
	// As root over sudo, since the keeper's files may be root's.
	return errors.Join(downErr, asRoot("rm", "-rf", "--one-file-system", root).Run())
}

// down stops the installation, as `holdfast down` does, without the 15 seconds that
// weed's filer takes to end: it is killed when its turn has come, after all that has
// asked something of it. Who wants to see it end by itself runs the command
// (TestForeground, TestKillEverything).
func (in *installation) down(ctx context.Context, flags ...string) error {
	ended := make(chan struct{})
	var killer sync.WaitGroup
	if s, err := in.status(ctx); err == nil {
		killer.Go(func() { in.killFiler(s, ended) }) //nolint:contextcheck // a kill is not cancelled
	}
	_, err := in.run(ctx, append([]string{"down"}, flags...)...)
	close(ended)
	killer.Wait()
	return err
}

func (in *installation) mustDown(t *testing.T) {
	t.Helper()
	if err := in.down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// killFiler kills the filer once the gateway is gone, which is stopped before it. It
// gives up when ended is closed.
func (in *installation) killFiler(s status, ended <-chan struct{}) {
	pids := map[string]int{}
	for _, c := range s.Processes {
		pids[c.Name] = c.PID
	}
	filer, s3 := pids["filer"], pids["s3"]
	if filer == 0 || s3 == 0 {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for in.runs(s3) {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
	if in.runs(filer) {
		killNow(filer)
	}
}

// nothingLeft says whether a process, a mount or a listening port of the
// installation is left.
func (in *installation) nothingLeft() error {
	mounts, err := mountsBelow(filepath.Dir(in.dir))
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("still mounted: %v", mounts)
	}
	return errors.Join(in.noProcess(), portsFree(context.Background(), in.base))
}

func (in *installation) noProcess() error {
	if pids := in.processes(); len(pids) > 0 {
		var names []string
		for _, pid := range pids {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			names = append(names, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(b), "\x00", " ")))
		}
		return fmt.Errorf("still running: %s", strings.Join(names, "; "))
	}
	return nil
}

// processes are those that carry the state's folder in their arguments or their
// environment: everything that `up` starts has it.
func (in *installation) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if in.runs(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// runs says whether a process is there and the installation's.
func (in *installation) runs(pid int) bool {
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return strings.Contains(string(args), in.dir) || strings.Contains(string(env), in.dir)
}

// killAll ends every process of the installation at once, as a power cut would.
func (in *installation) killAll() {
	for _, pid := range in.processes() {
		killNow(pid)
	}
}

func killNow(pid int) {
	if err := syscall.Kill(pid, syscall.SIGKILL); errors.Is(err, syscall.EPERM) {
		_ = asRoot("kill", "-9", strconv.Itoa(pid)).Run()
	}
}

// mountsBelow are the mount points at dir and below it, the deepest first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var points []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			points = append([]string{fields[4]}, points...)
		}
	}
	return points, lines.Err()
}

// detachAll unmounts what is left below dir, which is ours.
func detachAll(dir string) {
	mounts, _ := mountsBelow(dir)
	for _, m := range mounts {
		_ = asRoot("umount", "-l", m).Run()
	}
}

// asRoot runs a command as root.
func asRoot(args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		args = append([]string{"sudo", "-n", "--"}, args...)
	}
	ctx := context.Background() // clean-up outlives the test's context
	return exec.CommandContext(ctx, args[0], args[1:]...)
}
