package cluster_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// listening returns the addresses that a process listens on, read from /proc:
// "127.0.0.1:8333" for TCP, the path for unix sockets.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("descriptors of %d: %v", pid, err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			inodes[strings.Trim(to[len("socket:"):], "[]")] = true
		}
	}
	var found []string
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, f := range procNet(t, pid, proto) {
			// A UDP socket that is not connected listens, whatever it is for.
			listens := f[3] == "0A" || strings.HasPrefix(proto, "udp") && f[3] == "07"
			if listens && inodes[f[9]] {
				found = append(found, address(t, f[1]))
			}
		}
	}
	for _, f := range procNet(t, pid, "unix") {
		const accepting = "00010000" // __SO_ACCEPTCON
		if f[3] == accepting && inodes[f[6]] {
			found = append(found, strings.Join(f[7:], " "))
		}
	}
	slices.Sort(found)
	return found
}

func procNet(t *testing.T, pid int, proto string) [][]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, proto))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// address turns "0100007F:208D" into "127.0.0.1:8333": words of 32 bits in the
// machine's own byte order.
func address(t *testing.T, s string) string {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	ip, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || !ok {
		t.Fatalf("address %q: %v", s, err)
	}
	return netip.AddrPortFrom(ip, uint16(n)).String()
}
