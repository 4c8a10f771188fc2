package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Control groups are the machine's: no namespace holds them, and a kubelet wants
// its root to be there before it starts.

const cgroupMount = "/sys/fs/cgroup"

// cgroupRoot is beneath which a node's pods are. Each cluster has a name of its
// own, or two checkouts would end each other's pods.
func cgroupRoot(f Folder, node int) string {
	return "/holdfast-e2e-" + f.id() + "/" + nodeName(node)
}

// hierarchies are all that are mounted. Where cgroup v1 is, a unified one may
// stand beside it, in which runc makes groups of its own accord.
func hierarchies() ([]string, error) {
	all, err := filepath.Glob(cgroupMount + "/*/cgroup.procs")
	for i := range all {
		all[i] = filepath.Dir(all[i])
	}
	return all, err
}

// hierarchiesV1 are the controllers of cgroup v1, which is what the nodes use.
func hierarchiesV1() ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var v1 []string
	for _, dir := range all {
		if _, err := os.Stat(dir + "/cgroup.controllers"); err != nil {
			v1 = append(v1, dir)
		}
	}
	if v1 == nil {
		return nil, fmt.Errorf("no hierarchy of cgroup v1 is mounted beneath %s, and the nodes' containerd 1.6 with the cgroupfs driver needs them", cgroupMount)
	}
	return v1, nil
}

func makeCgroups(f Folder, node int) error {
	v1, err := hierarchiesV1()
	if err != nil {
		return err
	}
	for _, hierarchy := range v1 {
		dir := hierarchy
		for name := range strings.SplitSeq(strings.Trim(cgroupRoot(f, node), "/"), "/") {
			parent := dir
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			// A cpuset begins empty, and an empty one takes no process.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				text, err := os.ReadFile(filepath.Join(parent, file))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, file), bytes.TrimSpace(text), 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeCgroups waits a moment for the kernel to have buried the processes.
func removeCgroups(f Folder, wait time.Duration) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	return removeTrees(all, filepath.Dir(cgroupRoot(f, 1)), wait)
}

// removeNodeCgroups is what a reboot does: the groups of a stopped node's
// containers would each cost its next kubelet three seconds of looking for them,
// before it calls itself ready.
func removeNodeCgroups(f Folder, node int) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	return removeTrees(all, cgroupRoot(f, node), endWait)
}

func removeTrees(hierarchies []string, name string, wait time.Duration) error {
	for until := time.Now().Add(wait); ; time.Sleep(100 * time.Millisecond) {
		var left []error
		for _, hierarchy := range hierarchies {
			left = append(left, removeCgroup(hierarchy+name))
		}
		err := errors.Join(left...)
		if err == nil || time.Now().After(until) {
			return err
		}
	}
}

// removeCgroup removes a tree of them, the leaves first. Files in it are not
// removed but vanish with their folder.
func removeCgroup(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove the control group %s: %w", dir, err)
		}
	}
	return nil
}
