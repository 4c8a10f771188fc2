package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// usage is what a row cost.
type usage struct {
	peakMiB float64 // of what serves the mount
	cpu     float64 // seconds, of the same
	servers float64 // seconds of the storage's processes
}

type meter struct {
	peer, servers []int
	cpu, server   float64
}

// startMeter lets the peaks of memory begin anew.
func (c *cluster) startMeter(ctx context.Context, p peer) (*meter, error) {
	servers, err := c.servers(ctx)
	if err != nil {
		return nil, err
	}
	m := &meter{peer: p.processes(), servers: servers}
	for _, pid := range m.peer {
		_, clearErr := output(asRoot(ctx, "sh", "-c", fmt.Sprintf("echo 5 > /proc/%d/clear_refs", pid)))
		err = errors.Join(err, clearErr)
	}
	m.cpu, m.server = seconds(m.peer), seconds(m.servers)
	return m, err
}

func (m *meter) stop() usage {
	return usage{peakMiB: memory(m.peer, "VmHWM:"), cpu: seconds(m.peer) - m.cpu, servers: seconds(m.servers) - m.server}
}

// resident is the memory of processes now, in MiB.
func resident(pids []int) float64 { return memory(pids, "VmRSS:") }

// memory is that of the largest of the processes: the one that serves. The others
// are its parents and the keeper, which hold nothing.
func memory(pids []int, key string) (mib float64) {
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, key); ok {
				kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
				mib = max(mib, kib/1024)
			}
		}
	}
	return mib
}

// seconds of CPU that processes have used.
func seconds(pids []int) (s float64) {
	const perSecond = 100 // USER_HZ
	for _, pid := range pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 12 {
			user, _ := strconv.ParseFloat(f[11], 64)
			system, _ := strconv.ParseFloat(f[12], 64)
			s += (user + system) / perSecond
		}
	}
	return s
}

// dropPages drops the page cache of the whole machine, so of the storage too.
func dropPages(ctx context.Context) error {
	_, err := output(asRoot(ctx, "sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"))
	return err
}
