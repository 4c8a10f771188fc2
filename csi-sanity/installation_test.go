package csisanity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// commandTimeout bounds one command: the first up may download SeaweedFS.
const commandTimeout = 5 * time.Minute

// installation is a state of its own, with the commands that work on it.
type installation struct {
	dir  string
	base int
	// work is a folder for what a test mounts and copies, open to all users.
	work    string
	release func()
	// environment that is added to that of the commands.
	environment []string
}

// newInstallation makes the folders and finds ports. Nothing is started.
func newInstallation(ctx context.Context) (*installation, error) {
	// Directly below the temporary folder: sockets have short paths.
	dir, err := os.MkdirTemp("", "hf-")
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	in := &installation{dir: filepath.Join(dir, "s"), work: filepath.Join(dir, "w")}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(in.work, 0o755)); err != nil {
		return nil, err
	}
	in.base, in.release, err = reserveBase(ctx)
	return in, err
}

// begin gives a test an installation of its own that is not started yet. Such
// tests run side by side, since they wait most of their time.
func begin(t *testing.T) *installation {
	t.Helper()
	t.Parallel()
	return beginAlone(t)
}

// beginAlone is begin for a test that beside others would take ports which those
// have only reserved.
func beginAlone(t *testing.T) *installation {
	t.Helper()
	in, err := newInstallation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			in.showLogs(t)
		}
		if err := in.close(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return in
}

// startState gives a test a running installation of its own.
func startState(t *testing.T) *installation {
	t.Helper()
	in := begin(t)
	in.up(t)
	return in
}

// sharedInstallation is started by the first test that needs it and closed by
// TestMain.
type sharedInstallation struct {
	once sync.Once
	in   *installation
	err  error
}

var theShared sharedInstallation

// shared gives a test the installation that runs for all of them.
func shared(t *testing.T) *installation {
	t.Helper()
	theShared.once.Do(func() {
		if theShared.in, theShared.err = newInstallation(t.Context()); theShared.err != nil {
			return
		}
		_, theShared.err = theShared.in.run(t.Context(), "up", "--port-base", fmt.Sprint(theShared.in.base))
	})
	if theShared.err != nil {
		if theShared.in != nil {
			theShared.in.showLogs(t)
		}
		t.Fatalf("the shared installation: %v", theShared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			theShared.in.showLogs(t)
		}
	})
	return theShared.in
}

func (s *sharedInstallation) close() error {
	if s.in == nil {
		return nil
	}
	return s.in.close()
}

// output of a command that was run to its end.
type output struct{ stdout, stderr string }

// command is a call of holdfast on this state.
func (in *installation) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "holdfast"), args...)
	cmd.Env = append(os.Environ(), "HOLDFAST_STATE="+in.dir)
	cmd.Env = append(cmd.Env, in.environment...)
	// A program of another test may have a copy of our pipes and wait for a mount that
	// does not answer (apart).
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run calls holdfast. The error of a failed command is what it said.
func (in *installation) run(ctx context.Context, args ...string) (output, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return finish(in.command(ctx, args...))
}

// finish runs a command to its end.
func finish(cmd *exec.Cmd) (output, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := output{stdout.String(), stderr.String()}
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out.stdout, out.stderr)
	}
	return out, nil
}

// must calls holdfast and returns what it printed.
func (in *installation) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := in.run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out.stdout
}

// fails calls holdfast, which must fail in one line of its own that holds every
// one of words.
func (in *installation) fails(t *testing.T, args []string, words ...string) {
	t.Helper()
	out, err := in.run(t.Context(), args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("holdfast %s: want exit code 1, got %v", strings.Join(args, " "), err)
		return
	}
	lines := strings.Split(strings.TrimSpace(out.stderr), "\n")
	last := lines[len(lines)-1]
	for _, w := range append([]string{"holdfast: "}, words...) {
		if !strings.Contains(last, w) {
			t.Errorf("holdfast %s says %q, want it to say %q", strings.Join(args, " "), last, w)
		}
	}
	for _, line := range lines[:len(lines)-1] {
		if strings.HasPrefix(line, "holdfast: ") {
			t.Errorf("holdfast %s says more than one line: %q", strings.Join(args, " "), out.stderr)
		}
	}
	t.Logf("holdfast %s -> %s", strings.Join(args, " "), last)
}

// up starts the installation.
func (in *installation) up(t *testing.T) {
	t.Helper()
	in.must(t, "up", "--port-base", fmt.Sprint(in.base))
}

// status as `holdfast status -o json` tells it.
type status struct {
	Phase      string
	PortBase   int `json:"port_base"`
	Supervisor process
	Processes  []component
	Warnings   []string
	Endpoints  struct {
		S3         string
		Filer      string
		Controller string `json:"csi_controller"`
		Node       string `json:"csi_node"`
		AdminKeys  string `json:"admin_keys"`
	}
	Mounts []struct{ Name, Target string }
}

type process struct {
	PID   int
	Start uint64
}

type component struct {
	process
	Name           string
	Running, Ready bool
	Restarts       int
}

// status asks; an unhealthy installation has one too.
func (in *installation) status(ctx context.Context) (s status, err error) {
	out, runErr := in.run(ctx, "status", "-o", "json")
	if err := json.Unmarshal([]byte(out.stdout), &s); err != nil {
		return s, errors.Join(runErr, err)
	}
	return s, nil
}

func (in *installation) mustStatus(t *testing.T) status {
	t.Helper()
	s, err := in.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// component returns one of the processes.
func (s status) component(t *testing.T, name string) component {
	t.Helper()
	for _, c := range s.Processes {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no process %q in %+v", name, s.Processes)
	return component{}
}

// eventually waits until check returns nil.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	if err := poll(t.Context(), within, check); err != nil {
		t.Fatal(err)
	}
}

// poll asks until check returns nil, or returns its last error.
func poll(ctx context.Context, within time.Duration, check func() error) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-deadline.C:
			return fmt.Errorf("not within %s: %w", within, err)
		case <-tick.C:
		}
	}
}

// showLogs prints the ends of the logs.
func (in *installation) showLogs(t *testing.T) {
	logs, _ := filepath.Glob(filepath.Join(in.dir, "logs", "*.log"))
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if len(b) > 4000 {
			b = b[len(b)-4000:]
		}
		t.Logf("--- %s\n%s", filepath.Base(path), b)
	}
}
