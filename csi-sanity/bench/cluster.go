package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cluster is an installation of Holdfast in a folder of its own.
type cluster struct {
	root     string
	holdfast string
	weed     string
	base     int
}

// status is what `holdfast status -o json` tells of it.
type status struct {
	PortBase   int `json:"port_base"`
	Supervisor struct{ PID int }
	Processes  []struct {
		Name  string
		PID   int
		Ready bool
	}
}

func startCluster(ctx context.Context, o options) (*cluster, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(o.dir, "hf-bench-")
	if err != nil {
		return nil, err
	}
	c := &cluster{root: root, holdfast: filepath.Join(bin, "holdfast")}
	if err := os.Chmod(root, 0o755); err != nil { // the services run as other users
		return nil, errors.Join(err, c.close(ctx))
	}
	if _, err := c.call(ctx, "up"); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	s, err := c.status(ctx)
	if err == nil {
		c.base = s.PortBase
		// The very binary that serves the cluster is the peer too.
		c.weed, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", s.pid("master")))
	}
	if err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, nil
}

func (c *cluster) state() string { return filepath.Join(c.root, "s") }

// letIn leads weed mount, whose working directory is root, to the certificate of
// the cluster's owner.
func (c *cluster) letIn() error {
	pki := filepath.Join(c.state(), "pki")
	ca, own := filepath.Join(pki, "ca.crt"), filepath.Join(pki, "admin.pem")
	return os.WriteFile(filepath.Join(c.root, "security.toml"), fmt.Appendf(nil, `[grpc]
ca = %[1]q
[grpc.client]
cert = %[2]q
key = %[2]q
[https.client]
enabled = true
ca = %[1]q
cert = %[2]q
key = %[2]q
[https.volume]
ca = %[1]q
`, ca, own), 0o600)
}

// call runs holdfast and returns what it printed.
func (c *cluster) call(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.holdfast, args...)
	cmd.Env = append(os.Environ(), "HOLDFAST_STATE="+c.state())
	return output(cmd)
}

// status waits until all processes are ready: on a busy machine one may not say so at
// once.
func (c *cluster) status(ctx context.Context) (s status, err error) {
	var out string
	waited := until(ctx, "the status", func() bool {
		out, err = c.call(ctx, "status", "-o", "json")
		return err == nil
	})
	if waited != nil {
		return s, errors.Join(waited, err)
	}
	return s, json.Unmarshal([]byte(out), &s)
}

func (s status) pid(name string) int {
	for _, p := range s.Processes {
		if p.Name == name {
			return p.PID
		}
	}
	return 0
}

// servers are the processes of the storage.
func (c *cluster) servers(ctx context.Context) ([]int, error) {
	s, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range s.Processes {
		switch p.Name {
		case "master", "filer", "s3", "volume1", "volume2":
			pids = append(pids, p.PID)
		}
	}
	return pids, nil
}

func (c *cluster) weedVersion(ctx context.Context) string {
	out, err := output(exec.CommandContext(ctx, c.weed, "version"))
	if fields := strings.Fields(out); err == nil && len(fields) > 2 {
		return fields[2]
	}
	return "?"
}

// close stops it and takes its folder away, unless something is mounted there.
func (c *cluster) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	_, err := c.call(ctx, "down", "--delete-data", "--yes")
	mounts, readErr := os.ReadFile("/proc/self/mountinfo")
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if strings.Contains(string(mounts), " "+c.root+"/") {
		return errors.Join(err, fmt.Errorf("something is still mounted below %s", c.root))
	}
	_, rmErr := output(asRoot(ctx, "rm", "-rf", "--one-file-system", c.root))
	return errors.Join(err, rmErr)
}

// asRoot is a command that only root may run.
func asRoot(ctx context.Context, args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		args = append([]string{"sudo", "-n", "--"}, args...)
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// output runs a command; the error holds what it said.
func output(cmd *exec.Cmd) (string, error) {
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// until asks every 10 ms.
func until(ctx context.Context, what string, ask func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// family is a process and its children.
func family(pid int) []int {
	pids := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}
