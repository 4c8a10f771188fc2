package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is one of those that are measured.
type peer interface {
	name() string
	dir() string
	mount(ctx context.Context) error
	unmount(ctx context.Context) error
	// forget deletes what is cached on this machine. Nothing is mounted then.
	forget(ctx context.Context) error
	// processes are those that serve the mount.
	processes() []int
}

func (c *cluster) peer(ctx context.Context, name string) (peer, error) {
	dir := filepath.Join(c.root, "mnt-"+name)
	switch name {
	case "holdfast":
		_, err := c.call(ctx, "volume", "create", "bench-holdfast", "--size", "100Gi")
		return &holdfastPeer{c: c, at: dir}, err
	case "weed":
		if _, err := c.call(ctx, "volume", "create", "bench-weed", "--size", "100Gi"); err != nil {
			return nil, err
		}
		out, err := c.call(ctx, "volume", "describe", "bench-weed")
		bucket := ""
		for line := range strings.Lines(out) {
			if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(strings.TrimSpace(key), "bucket") {
				bucket = strings.TrimSpace(value)
			}
		}
		if err == nil && bucket == "" {
			err = fmt.Errorf("no bucket in %q", out)
		}
		err = errors.Join(err, c.letIn())
		cache := filepath.Join(c.root, "weed-cache")
		return &processPeer{title: name, at: dir, cache: cache, command: func() []string {
			return []string{
				c.weed, "mount", fmt.Sprintf("-filer=127.0.0.1:%d.%d", c.base+6, c.base+7),
				"-filer.path=/buckets/" + bucket, "-dir=" + dir, "-cacheDir=" + cache, "-cacheCapacityMB=4096",
			}
		}}, err
	case "loop":
		backing := filepath.Join(c.root, "loop")
		self, err := os.Executable()
		return &processPeer{title: name, at: dir, command: func() []string {
			return []string{self, loopCommand, dir, backing}
		}}, errors.Join(err, os.MkdirAll(backing, 0o755))
	}
	return nil, fmt.Errorf("no such peer: %q (holdfast, weed, loop)", name)
}

// holdfastPeer is Holdfast itself, mounted by its own command.
type holdfastPeer struct {
	c  *cluster
	at string
	on bool
}

func (p *holdfastPeer) name() string { return "holdfast" }
func (p *holdfastPeer) dir() string  { return p.at }

func (p *holdfastPeer) mount(ctx context.Context) error {
	var last error
	err := until(ctx, "mount", func() bool { // a mounter may be starting
		_, last = p.c.call(ctx, "volume", "mount", "bench-holdfast", p.at)
		return last == nil
	})
	p.on = err == nil
	return errors.Join(err, last)
}

func (p *holdfastPeer) unmount(ctx context.Context) error {
	if !p.on {
		return nil
	}
	_, err := p.c.call(ctx, "volume", "unmount", p.at)
	p.on = p.on && err != nil
	return err
}

// forget ends the mounter, empties its cache, and lets the supervisor start it
// again; meanwhile the supervisor must not, so it stands still.
func (p *holdfastPeer) forget(ctx context.Context) error {
	s, err := p.c.status(ctx)
	if err != nil {
		return err
	}
	signal := func(pid int, sig string) error {
		_, err := output(asRoot(ctx, "kill", "-"+sig, strconv.Itoa(pid)))
		return err
	}
	if err := signal(s.Supervisor.PID, "STOP"); err != nil {
		return err
	}
	pids := family(s.pid("mounter"))
	err = signal(pids[0], "TERM")
	if err == nil {
		err = until(ctx, "the mounter's end", func() bool {
			return !slices.ContainsFunc(pids, alive)
		})
	}
	if err == nil {
		_, err = output(asRoot(ctx, "find", filepath.Join(p.c.state(), "mounter", "cache"), "-mindepth", "1", "-delete"))
	}
	return errors.Join(err, signal(s.Supervisor.PID, "CONT"), until(ctx, "a new mounter", func() bool {
		now, err := p.c.status(ctx)
		if err != nil || now.pid("mounter") == pids[0] {
			return false
		}
		for _, q := range now.Processes {
			if q.Name == "mounter" {
				return q.Ready
			}
		}
		return false
	}))
}

func (p *holdfastPeer) processes() []int {
	s, err := p.c.status(context.Background())
	if err != nil {
		return nil
	}
	return append(family(s.pid("mounter")), s.pid("keeper"))
}

// processPeer is a program that serves one mount until it is unmounted.
type processPeer struct {
	title, at, cache string
	command          func() []string
	cmd              *exec.Cmd
	said             strings.Builder
	ended            chan struct{}
}

func (p *processPeer) name() string { return p.title }
func (p *processPeer) dir() string  { return p.at }

func (p *processPeer) mount(ctx context.Context) error {
	for _, d := range []string{p.at, p.cache} {
		if d == "" {
			continue
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	before, err := device(p.at)
	if err != nil {
		return err
	}
	args := p.command()
	p.said.Reset()
	p.cmd = asRoot(context.WithoutCancel(ctx), args...)
	p.cmd.Dir = filepath.Dir(p.at) // no configuration of this machine's own
	p.cmd.Env = []string{"HOME=" + filepath.Dir(p.at), "PATH=" + os.Getenv("PATH")}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() {
		_ = p.cmd.Wait() // it ends with the unmount, however it says so
		close(p.ended)
	}()
	return until(ctx, "mount", func() bool {
		now, err := device(p.at)
		return err == nil && now != before
	})
}

// device of what is at a path.
func device(path string) (uint64, error) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return st.Dev, err
}

func (p *processPeer) unmount(ctx context.Context) error {
	if p.cmd == nil {
		return nil
	}
	if _, err := output(asRoot(ctx, "umount", p.at)); err != nil {
		return fmt.Errorf("%w\n%s", err, p.said.String())
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		_, _ = output(asRoot(ctx, "kill", "-9", strconv.Itoa(p.cmd.Process.Pid)))
		<-p.ended
	}
	p.cmd = nil
	return nil
}

func (p *processPeer) forget(ctx context.Context) error {
	if p.cache == "" {
		return nil
	}
	_, err := output(asRoot(ctx, "find", p.cache, "-mindepth", "1", "-delete"))
	return err
}

func (p *processPeer) processes() []int {
	if p.cmd == nil {
		return nil
	}
	return family(p.cmd.Process.Pid)
}
