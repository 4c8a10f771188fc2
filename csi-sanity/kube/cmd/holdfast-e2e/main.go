// holdfast-e2e builds, starts, enters and stops a real Kubernetes of two nodes
// on this machine, and runs Holdfast's end-to-end tests on it. README.md of
// csi-sanity/kube says what it is made of.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

const usage = `holdfast-e2e: a real Kubernetes of two nodes on this machine

  holdfast-e2e build                    make all programs and images, where they have changed
  holdfast-e2e up                       start a new cluster (and build)
  holdfast-e2e down                     stop it; the logs stay
  holdfast-e2e test [SCENARIO]          up, all tests (or those whose name matches), down
  holdfast-e2e kubectl ARGUMENTS...     as the cluster's administrator
  holdfast-e2e exec COMMAND...          in the cluster's namespaces: pods, Services and the API server are reached
  holdfast-e2e node N COMMAND...        in node N's namespaces: its /var/lib/kubelet, its processes
  holdfast-e2e stop N | start N         power failure of node N, and its return
  holdfast-e2e stop-kubelet N | start-kubelet N | restart-kubelet N

It needs root. HOLDFAST_E2E_OUT is the folder for what is built and for the cluster, bin/e2e of
this checkout by default; HOLDFAST_E2E_KEEP=1 lets a failed test's cluster run on.
`

// The commands that this program gives itself, in other namespaces.
const (
	clusterInit = "cluster-init"
	nodeInit    = "node-init"
	ask         = "ask"
	nodeExec    = "node-exec"
)

func main() {
	// The cluster of a test ends with the thread that started it.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, os.Args[1:])
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() > 0 && len(os.Args) > 1 && passesStatus[os.Args[1]] {
		os.Exit(ended.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "holdfast-e2e:", err)
		os.Exit(1)
	}
}

// passesStatus are the commands that run another program in their place.
var passesStatus = map[string]bool{"kubectl": true, "exec": true, "node": true}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	command, args := args[0], args[1:]
	switch command {
	case clusterInit:
		return cluster.Init(args[0])
	case nodeInit:
		return cluster.NodeInit(args[0], args[1])
	case ask:
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return cluster.Ask(ctx, n, args[0])
	case "help", "-h", "--help":
		_, err := fmt.Print(usage)
		return err
	}

	h, err := newHarness(os.Stdout)
	if err != nil {
		return err
	}
	switch command {
	case "build":
		_, err = h.build(ctx)
		return err
	case "up":
		return h.up(ctx, false)
	case "down":
		return cluster.Stop(h.folder)
	case "test":
		return h.test(ctx, args)
	case "kubectl":
		return h.enter(ctx, append([]string{filepath.Join(h.out, "kubectl"), "--kubeconfig", h.folder.Kubeconfig()}, args...)...)
	case "exec":
		if len(args) == 0 {
			return errors.New("exec: a command is wanted")
		}
		return h.enter(ctx, args...)
	case "node":
		if len(args) < 2 {
			return errors.New("node: its number and a command are wanted")
		}
		return h.enter(ctx, append([]string{h.self, nodeExec}, args...)...)
	case nodeExec:
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("node %q: a number is wanted", args[0])
		}
		line, err := cluster.EnterNode(h.folder, n, args[1:]...)
		if err != nil {
			return err
		}
		return syscall.Exec(line[0], line, os.Environ())
	case "stop", "start", "stop-kubelet", "start-kubelet", "restart-kubelet":
		if len(args) != 1 {
			return fmt.Errorf("%s: the number of a node is wanted", command)
		}
		return h.enter(ctx, h.self, ask, command, args[0])
	default:
		return fmt.Errorf("unknown command %q\n\n%s", command, usage)
	}
}

// harness is one checkout's.
type harness struct {
	root, out, self string
	folder          cluster.Folder
	stdout          io.Writer
	began           time.Time
}

func newHarness(stdout io.Writer) (*harness, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	out := os.Getenv("HOLDFAST_E2E_OUT")
	if out == "" {
		out = filepath.Join(root, "bin", "e2e")
	}
	if out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	folder, err := cluster.NewFolder(filepath.Join(out, "cluster"))
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	return &harness{root: root, out: out, folder: folder, self: self, stdout: stdout, began: time.Now()}, err
}

// findRoot looks for the checkout upwards from the working folder, and then from
// this program.
func findRoot() (string, error) {
	work, err := os.Getwd()
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, from := range []string{work, filepath.Dir(self)} {
		for dir := from; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "csi-sanity", "kube", "go.mod")); err == nil {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", fmt.Errorf("neither %s nor %s is in a checkout of Holdfast: run it from there", work, filepath.Dir(self))
}

func (h *harness) Write(line []byte) (int, error) {
	return fmt.Fprintf(h.stdout, "[%4d s] %s", int(time.Since(h.began).Seconds()), line)
}

func (h *harness) say(format string, args ...any) { _, _ = fmt.Fprintf(h, format+"\n", args...) }

func (h *harness) build(ctx context.Context) (build.Images, error) {
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	b := &build.Builder{Root: h.root, Out: h.out, Go: goCommand, Progress: h}
	h.say("building what has changed, into %s (all of it takes some ten minutes on two cores)", h.out)
	if err := b.Programs(ctx); err != nil {
		return build.Images{}, err
	}
	return b.Images(ctx)
}

func (h *harness) up(ctx context.Context, bound bool) error {
	made, err := h.build(ctx)
	if err != nil {
		return err
	}
	h.say("starting two nodes; logs are in %s", h.folder.Logs())
	err = cluster.Start(ctx, cluster.Options{
		Folder: h.folder, Bin: h.out, Images: made.Archives, Pause: build.PauseImage, DNSImage: made.DNS,
		Nodes: 2, Bound: bound,
	})
	if err != nil {
		return err
	}
	h.say("the cluster is ready")
	return nil
}

// enter runs a command in the cluster's namespaces.
func (h *harness) enter(ctx context.Context, args ...string) error {
	line, err := cluster.Enter(h.folder, args...)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}
