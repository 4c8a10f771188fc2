package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is a process that keeps a mount from being unmounted.
type Holder struct {
	PID  int
	Name string
	// Does says what it has there: "works in /x", "has /x/y open".
	Does string
}

func (h Holder) String() string { return fmt.Sprintf("%s (pid %d) %s", h.Name, h.PID, h.Does) }

// Holders returns the processes that work in dir or have something below it
// open, as far as the caller may see. It reads links in /proc only, and never
// touches dir itself: a mount whose server hangs would take us with it.
func Holders(dir string) []Holder {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Holder
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if does := holds(filepath.Join("/proc", e.Name()), dir); does != "" {
			found = append(found, Holder{PID: pid, Name: name(pid), Does: does})
		}
	}
	slices.SortFunc(found, func(a, b Holder) int { return a.PID - b.PID })
	return found
}

func holds(proc, dir string) string {
	for link, does := range map[string]string{"cwd": "works in ", "root": "has as its root ", "exe": "runs "} {
		if target, err := os.Readlink(filepath.Join(proc, link)); err == nil && below(target, dir) {
			return does + target
		}
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && below(target, dir) {
			return "has " + strings.TrimSuffix(target, " (deleted)") + " open"
		}
	}
	// A mapping keeps a mount busy without a descriptor.
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(maps) {
		if i := bytes.IndexByte(line, '/'); i >= 0 && below(strings.TrimSpace(string(line[i:])), dir) {
			return "has " + strings.TrimSpace(string(line[i:])) + " mapped"
		}
	}
	return ""
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func name(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(b))
}
