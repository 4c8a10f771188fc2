package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, dir string) (*exec.Cmd, ID) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	id, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func TestIdentity(t *testing.T) {
	_, id := start(t, "")
	if !id.Alive() {
		t.Error("a process that runs is not alive")
	}
	other := ID{PID: id.PID, Start: id.Start + 1}
	if other.Alive() {
		t.Error("another process with the same number is taken for it")
	}
	if err := other.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if !id.Alive() {
		t.Fatal("a signal went to the wrong process")
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// It is a zombie from now on, which counts as ended.
	if err := id.Wait(ctx); err != nil {
		t.Error(err)
	}
	if err := (ID{}).Signal(syscall.SIGTERM); err != nil {
		t.Errorf("nobody: %v", err)
	}
}

func TestParseStat(t *testing.T) {
	state, begun, err := parseStat([]byte("12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	if err != nil || state != 'S' || begun != 4242 {
		t.Errorf("%c, %d, %v", state, begun, err)
	}
	if _, _, err := parseStat([]byte("12 (a) S 1")); err == nil {
		t.Error("a short line was taken")
	}
}

func TestHolders(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if found := Holders(dir); len(found) != 0 {
		t.Errorf("nobody is there, found %v", found)
	}
	cmd, _ := start(t, dir)
	open, err := os.Create(filepath.Join(dir, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	reader := exec.CommandContext(t.Context(), "sleep", "60")
	reader.Stdin = open
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = reader.Process.Kill()
		_ = reader.Wait()
	})
	var pids []int
	var text []string
	for _, h := range Holders(dir) {
		pids = append(pids, h.PID)
		text = append(text, h.String())
	}
	if len(pids) != 2 || pids[0] != min(cmd.Process.Pid, reader.Process.Pid) {
		t.Fatalf("found %v, want %d and %d", text, cmd.Process.Pid, reader.Process.Pid)
	}
	all := strings.Join(text, "\n")
	if !strings.Contains(all, "works in "+dir) || !strings.Contains(all, "has "+open.Name()+" open") {
		t.Error(all)
	}
}
