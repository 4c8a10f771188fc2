package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Folder is where one cluster keeps what it has: keys, configuration, logs and
// the disks of its nodes. It is removed with the cluster, but for the logs.
type Folder string

// NewFolder checks a path. What a node covers with a disk of its own must not
// hold the folder, or the node would not see it.
func NewFolder(path string) (Folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for _, covered := range covered {
		if strings.HasPrefix(path+"/", covered+"/") {
			return "", fmt.Errorf("the cluster's folder is %s, and each node has a %s of its own that would hide it: choose another folder", path, covered)
		}
	}
	return Folder(path), nil
}

// covered are the folders of the machine that each node has for its own.
var covered = []string{"/run", "/var/lib", "/var/log"}

func (f Folder) path(elements ...string) string {
	return filepath.Join(append([]string{string(f)}, elements...)...)
}

// Kubeconfig is the administrator's.
func (f Folder) Kubeconfig() string { return f.path("keys", "admin.kubeconfig") }

// Logs is the folder with a file for each program.
func (f Folder) Logs() string { return f.path("logs") }

func (f Folder) log(name string) string { return f.path("logs", name+".log") }

// Disk is what a node keeps over a power failure: its /var/lib and /var/log.
func (f Folder) Disk(node int) string { return f.path("disks", nodeName(node)) }

// id tells the control groups of one folder from those of another checkout.
func (f Folder) id() string {
	sum := sha256.Sum256([]byte(f))
	return hex.EncodeToString(sum[:4])
}

// initFile names the cluster's init as the machine knows it.
func (f Folder) initFile() string { return f.path("init.pid") }

// nodeFile names a node's init as the cluster's PID namespace knows it.
func (f Folder) nodeFile(node int) string { return f.path(nodeName(node) + ".pid") }

func nodeName(n int) string { return "node" + strconv.Itoa(n) }

// process is a process that cannot be taken for a later one of the same number.
type process struct {
	pid     int
	started string // field 22 of /proc/PID/stat, in ticks since boot
}

func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in brackets, may hold blanks and brackets; field 3 follows it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const state, starttime = 3, 22
	if len(fields) <= starttime-state {
		return "", fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[starttime-state], nil
}

func writeProcess(file string, pid int) error {
	started, err := startOf(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%d %s\n", pid, started), 0o644)
}

// readProcess gives back false where the process is no more, or never was.
func readProcess(file string) (process, bool) {
	var p process
	text, err := os.ReadFile(file)
	if err != nil {
		return p, false
	}
	if _, err := fmt.Sscan(string(text), &p.pid, &p.started); err != nil {
		return p, false
	}
	return p, p.alive()
}

func (p process) alive() bool {
	started, err := startOf(p.pid)
	return err == nil && started == p.started
}
