package csisanity

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// procStatus is what /proc says of a process, by the names there.
func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// children of a process, whichever of its threads has started them.
func children(pid int) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// Every process has the rights that it needs and no others; the keeper alone is
// root.
func TestPrivileges(t *testing.T) {
	in := shared(t)
	s := in.mustStatus(t)
	root := os.Getuid() == 0
	me := strconv.Itoa(os.Getuid())
	uidOf := map[string]string{
		"master": "64800", "volume1": "64800", "volume2": "64800", "filer": "64800", "s3": "64800",
		"controller": "64800", "mounter": "64801", "node": "0", "keeper": "0",
	}
	for _, c := range s.Processes {
		want, known := uidOf[c.Name]
		if !known {
			t.Errorf("process %s is not expected", c.Name)
			continue
		}
		if !root && c.Name != "keeper" {
			want = me
		}
		for _, pid := range append(children(c.PID), c.PID) {
			status := procStatus(t, pid)
			if uids := strings.Fields(status["Uid"]); uids[0] != want || uids[1] != want || uids[2] != want {
				t.Errorf("%s (pid %d) runs as uid %s, want %s", c.Name, pid, status["Uid"], want)
			}
			if c.Name == "keeper" {
				continue
			}
			for _, set := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb"} {
				if caps := status[set]; strings.Trim(caps, "0") != "" {
					t.Errorf("%s (pid %d) has %s %s", c.Name, pid, set, caps)
				}
			}
			if c.Name == "node" && root && strings.Trim(status["CapBnd"], "0") != "" {
				t.Errorf("%s can get capabilities back: CapBnd %s", c.Name, status["CapBnd"])
			}
			if groups := status["Groups"]; root && c.Name != "node" && groups != "" && groups != want {
				t.Errorf("%s has the groups %s", c.Name, groups)
			}
		}
	}
}

// Nothing listens but on loopback, and only on the ports that were planned.
func TestListensOnLoopbackOnly(t *testing.T) {
	in := shared(t)
	s := in.mustStatus(t)
	var pids []int
	for _, c := range s.Processes {
		pids = append(pids, append(children(c.PID), c.PID)...)
	}
	pids = append(pids, s.Supervisor.PID)
	inodes := map[string]bool{}
	for _, pid := range pids {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			if os.Getuid() == 0 {
				t.Fatal(err)
			}
			continue // the keeper's, which is root's
		}
		for _, fd := range fds {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil {
				inodes[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
			}
		}
	}
	listening := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"} {
		for _, a := range listeners(t, table, inodes) {
			listening++
			if !a.ip.IsLoopback() {
				t.Errorf("%s: something of ours listens on %s:%d", table, a.ip, a.port)
			}
			if a.port < in.base || a.port >= in.base+basePorts {
				t.Errorf("%s: port %d is none of the planned ones from %d", table, a.port, in.base)
			}
		}
	}
	if listening != basePorts {
		t.Errorf("%d sockets listen, want %d", listening, basePorts)
	}
}

type address struct {
	ip   net.IP
	port int
}

// listeners are the sockets of a table that are in inodes and wait for others.
func listeners(t *testing.T, table string, inodes map[string]bool) []address {
	t.Helper()
	f, err := os.Open(table)
	if err != nil {
		return nil // no IPv6 here
	}
	defer func() { _ = f.Close() }()
	const listen, unconnected = "0A", "07"
	var found []address
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || !inodes[fields[9]] || (fields[3] != listen && fields[3] != unconnected) {
			continue
		}
		addr, port, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(addr)
		if err != nil {
			t.Fatal(err)
		}
		// Each group of four bytes is in the machine's order.
		for i := 0; i+3 < len(raw); i += 4 {
			raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
		}
		n, err := strconv.ParseInt(port, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, address{raw, int(n)})
	}
	return found
}

// Secrets lie in files that others cannot read, and in no log.
func TestSecrets(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	admin, err := os.ReadFile(in.mustStatus(t).Endpoints.AdminKeys)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"admin.json", "run/csi-controller.sock", "run/csi-node.sock", "run/keeper-node.sock", "run/keeper-mounter.sock"} {
		info, err := os.Lstat(filepath.Join(in.dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v", name, info.Mode())
		}
	}
	secrets := []string{v.Secret}
	for _, word := range strings.FieldsFunc(string(admin), func(r rune) bool { return strings.ContainsRune(" \n\t\"{}:,", r) }) {
		if len(word) > 30 {
			secrets = append(secrets, word)
		}
	}
	if len(secrets) != 2 {
		t.Fatalf("found %d secrets, want 2", len(secrets))
	}
	logs, err := filepath.Glob(filepath.Join(in.dir, "logs", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	clusterLogs, err := filepath.Glob(filepath.Join(in.dir, "cluster", "log", "*"))
	if err != nil || len(clusterLogs) == 0 {
		t.Fatalf("no logs of the cluster: %v", err)
	}
	for _, path := range append(logs, clusterLogs...) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		for _, s := range secrets {
			if strings.Contains(string(b), s) {
				t.Errorf("%s holds a secret", path)
			}
		}
	}
}
