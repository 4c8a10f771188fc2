package csisanity

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// command runs a program that must succeed.
func command(t *testing.T, args ...string) {
	t.Helper()
	mustRun(t, exec.CommandContext(t.Context(), args[0], args[1:]...))
}

func mustRun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		if len(out) > 2000 {
			out = append(out[:2000], "…"...)
		}
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// as is a command run by a user with that uid, and without groups.
func as(uid uint32, args ...string) *exec.Cmd {
	ctx := context.Background() // each use is short and waited for
	if os.Getuid() != 0 {
		return exec.CommandContext(ctx, "sudo", append([]string{"-n", "-u", fmt.Sprintf("#%d", uid), "--"}, args...)...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	cmd.Dir = "/"
	return cmd
}
