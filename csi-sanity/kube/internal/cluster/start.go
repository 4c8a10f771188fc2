package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
)

// endWait bounds the end of a killed cluster, with all of its processes.
const endWait = 30 * time.Second

// ErrDown is that there is no cluster in that folder.
var ErrDown = errors.New("no cluster runs: start one with  holdfast-e2e up")

// Start runs a new cluster and returns when its nodes are ready and names can
// be looked up. What an earlier one left in the folder is removed first.
func Start(ctx context.Context, o Options) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if _, up := readProcess(o.Folder.initFile()); up {
		return fmt.Errorf("a cluster runs in %s already: stop it with  holdfast-e2e down", o.Folder)
	}
	if err := cleanUp(o.Folder, false); err != nil {
		return fmt.Errorf("remove what the last cluster left: %w", err)
	}
	if err := os.MkdirAll(o.Folder.Logs(), 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.Folder.path("options.json"), text, 0o644); err != nil {
		return err
	}
	ended, err := launch(o)
	if err == nil {
		err = waitReady(ctx, o, ended)
	}
	if err != nil {
		return errors.Join(err, Stop(o.Folder))
	}
	return nil
}

// launch clones the cluster's init. The channel tells of its end.
func launch(o Options) (<-chan error, error) {
	log, err := os.Create(o.Folder.log("cluster"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, clusterInitArgument, o.Folder.path("options.json"))
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if o.Bound {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("clone into new namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, writeProcess(o.Folder.initFile(), cmd.Process.Pid)
}

func waitReady(ctx context.Context, o Options, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startWait+imageWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(o.Folder.path("ready")); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not ready: %w; its logs are in %s", context.Cause(ctx), o.Folder.Logs())
		case err := <-ended:
			return fmt.Errorf("the cluster's init ended (%w):\n%s\nmore logs are in %s", err, lastLines(o.Folder.log("cluster"), 20), o.Folder.Logs())
		case <-tick.C:
		}
	}
}

// Stop ends the cluster in that folder and removes all of it but its logs. One
// that does not run is cleaned up after.
func Stop(f Folder) error {
	if p, up := readProcess(f.initFile()); up {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("end the cluster's init, process %d: %w", p.pid, err)
		}
		for until := time.Now().Add(endWait); p.alive(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(until) {
				return fmt.Errorf("the cluster's init, process %d, does not end within %v of SIGKILL: one of its processes is stuck in the kernel", p.pid, endWait)
			}
		}
	}
	return cleanUp(f, true)
}

// cleanUp removes what does not go with the processes.
func cleanUp(f Folder, keepLogs bool) error {
	if err := removeCgroups(f, endWait); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// All mounts went with the namespaces. If one did not, it holds what is not ours.
	if at, err := mountedBeneath(string(f)); err != nil {
		return fmt.Errorf("what is mounted beneath %s is not known, so nothing is removed: %w", f, err)
	} else if at != "" {
		return fmt.Errorf("%s is still mounted: nothing is removed", at)
	}
	for _, entry := range entries {
		if keepLogs && entry.Name() == filepath.Base(f.Logs()) {
			continue
		}
		out, err := exec.Command("rm", "-rf", "--one-file-system", "--", f.path(entry.Name())).CombinedOutput()
		if err != nil {
			return fmt.Errorf("remove %s: %w: %s", f.path(entry.Name()), err, out)
		}
	}
	return nil
}

// mountedBeneath gives back one mount point of this namespace beneath dir, or "".
func mountedBeneath(dir string) (string, error) {
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0].Mountpoint, nil
}

// Enter gives back the command line that runs args in the cluster's namespaces,
// where the API server, pods and Services are reached.
func Enter(f Folder, args ...string) ([]string, error) {
	p, up := readProcess(f.initFile())
	if !up {
		return nil, ErrDown
	}
	return append([]string{"/usr/bin/nsenter", "--target", fmt.Sprint(p.pid), "--mount", "--net", "--pid", "--ipc", "--uts", "--"}, args...), nil
}

// EnterNode gives back the command line that runs args in a node's namespaces.
// It works in those of the cluster only: see Enter.
func EnterNode(f Folder, n int, args ...string) ([]string, error) {
	p, up := readProcess(f.nodeFile(n))
	if !up {
		return nil, fmt.Errorf("node %d does not run", n)
	}
	return append([]string{"/usr/bin/nsenter", "--target", fmt.Sprint(p.pid), "--mount", "--net", "--pid", "--ipc", "--uts", "--"}, args...), nil
}
