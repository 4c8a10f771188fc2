package supervise_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// wait bounds what must happen soon, on a machine that may be busy.
const wait = 10 * time.Second

var fast = supervise.Backoff{Min: 10 * time.Millisecond, Max: 40 * time.Millisecond}

func sh(name, script string) supervise.Spec {
	return supervise.Spec{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Backoff: fast}
}

func group(t *testing.T, specs ...supervise.Spec) *supervise.Group {
	t.Helper()
	g := supervise.NewGroup(supervise.Options{})
	t.Cleanup(g.Close)
	if err := g.Start(t.Context(), specs...); err != nil {
		t.Fatal(err)
	}
	return g
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	err := supervise.Poll(ctx, 5*time.Millisecond, func(context.Context) error {
		if !cond() {
			return errors.New(what)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("in vain waited for: %v", err)
	}
}

func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil }

// file is ready when path exists.
func file(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		return supervise.Poll(ctx, 5*time.Millisecond, func(context.Context) error {
			_, err := os.Stat(path)
			return err
		})
	}
}

func TestKilledChildIsStartedAgain(t *testing.T) {
	g := group(t, sh("a", "exec sleep 1000"), sh("b", "exec sleep 1000"))
	before := g.Status()
	if err := unix.Kill(before[0].PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a restart", func() bool { s := g.Process("a").Status(); return s.Restarts == 1 && s.Ready })
	a, b := g.Process("a").Status(), g.Process("b").Status()
	if a.PID == before[0].PID || !a.Running || a.LastExit != "signal: killed" {
		t.Errorf("after the kill: %+v", a)
	}
	if b != before[1] {
		t.Errorf("the other one changed: %+v, was %+v", b, before[1])
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(a.PID) || alive(b.PID) {
		t.Error("alive after Stop")
	}
}

func TestCrashLoopIsRestartedWithBackoff(t *testing.T) {
	g := group(t, sh("a", "exit 3"))
	eventually(t, "five restarts", func() bool { return g.Process("a").Status().Restarts >= 5 })
	if s := g.Process("a").Status(); s.LastExit != "exit status 3" {
		t.Errorf("%+v", s)
	}
}

func TestStopAsksFirstAndThenKills(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	polite := sh("polite", "trap 'exit 0' TERM; touch "+ready+"1; while :; do sleep 0.01; done")
	polite.Ready = file(ready + "1")
	deaf := sh("deaf", "trap '' TERM; touch "+ready+"2; while :; do sleep 0.01; done")
	deaf.Ready = file(ready + "2")
	deaf.StopGrace = 100 * time.Millisecond
	g := group(t, polite, deaf)
	if err := g.Stop(t.Context(), "polite"); err != nil {
		t.Error(err)
	}
	if s := g.Process("polite").Status(); s.Running || s.LastExit != "exit status 0" {
		t.Errorf("%+v", s)
	}
	if !g.Process("deaf").Status().Running {
		t.Error("the other one was stopped too")
	}
	err := g.Stop(t.Context(), "deaf")
	if err == nil || !strings.Contains(err.Error(), "deaf") {
		t.Errorf("a child that had to be killed: %v", err)
	}
}

func TestStopKillsWhenTheContextEnds(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	deaf := sh("deaf", "trap '' TERM; touch "+ready+"; while :; do sleep 0.01; done")
	deaf.Ready, deaf.StopGrace = file(ready), time.Hour
	g := group(t, deaf)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Stop(ctx); err == nil {
		t.Error("no word of the kill")
	}
	if s := g.Status()[0]; s.Running {
		t.Errorf("%+v", s)
	}
}

func TestDeathBeforeReadyIsAnErrorWithTheLastLines(t *testing.T) {
	dir := t.TempDir()
	bad := sh("bad", "echo first; echo the disk is on fire >&2; exit 7")
	bad.LogFile = filepath.Join(dir, "bad.log")
	bad.Ready = file("/does/not/exist")
	pidFile := filepath.Join(dir, "pid")
	good := sh("good", "echo $$ > "+pidFile+"; exec sleep 1000")
	good.Ready = file("/does/not/exist")

	g := supervise.NewGroup(supervise.Options{})
	defer g.Close()
	err := g.Start(t.Context(), good, bad)
	if !storage.Is(err, storage.Unavailable) {
		t.Fatalf("kind of %v", err)
	}
	for _, want := range []string{"bad", "exit status 7", "the disk is on fire"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q misses %q", err, want)
		}
	}
	if b, err := os.ReadFile(bad.LogFile); err != nil || !strings.Contains(string(b), "on fire") {
		t.Errorf("log file: %q, %v", b, err)
	}
	if len(g.Status()) != 0 {
		t.Errorf("left: %+v", g.Status())
	}
	if b, err := os.ReadFile(pidFile); err == nil {
		if pid, _ := strconv.Atoi(strings.TrimSpace(string(b))); alive(pid) {
			t.Errorf("the other one, %d, lives on", pid)
		}
	}
}

func TestNotReadyInTimeSaysWhatTheProbeSaid(t *testing.T) {
	slow := sh("slow", "echo still thinking; exec sleep 1000")
	slow.Ready = func(ctx context.Context) error {
		return supervise.Poll(ctx, time.Millisecond, func(context.Context) error { return errors.New("no answer yet") })
	}
	g := supervise.NewGroup(supervise.Options{})
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := g.Start(ctx, slow)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"slow", "no answer yet", "still thinking"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q misses %q", err, want)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	g := supervise.NewGroup(supervise.Options{})
	defer g.Close()
	err := g.Start(t.Context(), supervise.Spec{Name: "x", Path: "/does/not/exist"})
	if !storage.Is(err, storage.NotFound) || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("%v", err)
	}
}

func TestInvalidSpecs(t *testing.T) {
	g := group(t, sh("a", "exec sleep 1000"))
	for name, s := range map[string]supervise.Spec{
		"no name":           {Path: "/bin/sh"},
		"relative program":  {Name: "b", Path: "sh"},
		"relative folder":   {Name: "b", Path: "/bin/sh", Dir: "x"},
		"relative log":      {Name: "b", Path: "/bin/sh", LogFile: "x"},
		"name of another's": sh("a", "exit 0"),
	} {
		if err := g.Start(t.Context(), s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestGrandchildrenDieWithTheLeader(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	a := sh("a", "sleep 1000 & echo $! > "+pidFile+".tmp; mv "+pidFile+".tmp "+pidFile+"; wait")
	a.Ready = file(pidFile)
	g := group(t, a)
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if !alive(pid) {
		t.Fatal("no grandchild")
	}
	_ = g.Stop(t.Context())
	eventually(t, "the grandchild's end", func() bool { return !alive(pid) })
}

func TestEnvironmentIsNotInherited(t *testing.T) {
	t.Setenv("HOLDFAST_TEST_LEAK", "yes")
	out := filepath.Join(t.TempDir(), "env")
	a := sh("a", "env > "+out+".tmp; mv "+out+".tmp "+out+"; exec sleep 1000")
	a.Ready = file(out)
	group(t, a)
	if b, _ := os.ReadFile(out); strings.Contains(string(b), "LEAK") {
		t.Errorf("inherited: %s", b)
	}
}

func TestClosedGroup(t *testing.T) {
	g := group(t, sh("a", "exec sleep 1000"))
	g.Close()
	g.Close()
	if s := g.Status()[0]; s.Running {
		t.Errorf("%+v", s)
	}
	if err := g.Start(t.Context(), sh("b", "exit 0")); err == nil {
		t.Error("a closed group starts")
	}
}

func TestCloseEndsAStartUnderWay(t *testing.T) {
	g := supervise.NewGroup(supervise.Options{})
	slow := sh("slow", "exec sleep 1000")
	slow.Ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	errs := make(chan error, 1)
	go func() { errs <- g.Start(t.Context(), slow) }()
	eventually(t, "the child", func() bool { s := g.Status(); return len(s) == 1 && s[0].Running })
	g.Close()
	if err := <-errs; err == nil {
		t.Error("started, though closed")
	}
}
