package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// noPrivileges refuses to go on with more rights than the mounter may have: it
// parses what the network sends, so root or a capability is a risk that it does
// not need. It also makes sure that no child gets any.
func noPrivileges() error {
	if os.Geteuid() == 0 || os.Getuid() == 0 {
		return fmt.Errorf("this runs as root: start it as a user of its own, such as `setpriv --reuid 64801 --regid 64801 --clear-groups --no-new-privs holdfast-mount serve …`")
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if (name == "CapEff" || name == "CapPrm") && strings.Trim(strings.TrimSpace(value), "0") != "" {
			return fmt.Errorf("this has capabilities (%s %s): start it without any", name, strings.TrimSpace(value))
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return nil
}
