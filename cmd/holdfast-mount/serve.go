package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/cmd/internal/metrics"
	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// This file is the mounter's parent. Applications wait while there is no worker,
// so a dead one is replaced at once; Kubernetes' back-off of ten seconds and more
// is why the parent exists. It holds no session and does no work that could kill
// it.

const (
	// quickDeath: a worker that fails by itself sooner than that has a problem
	// that a new one may have too.
	quickDeath = time.Second
	// freeStarts such deaths in a row cost nothing, later ones longestPause.
	freeStarts   = 3
	longestPause = time.Second
	// stopGrace is what a worker has to bring what it holds to the cluster.
	stopGrace = 25 * time.Second
	// lingerCheck is how often the parent looks whether a worker is dead that
	// cannot be reaped: a thread that was killed inside a notification lingers
	// until the successor answers a request.
	lingerCheck = 50 * time.Millisecond
	// lifeline is the descriptor whose end tells the worker that it is alone.
	lifeline = 3
)

// serveOptions are the mounter's flags.
type serveOptions struct {
	runDir, keeper, stateDir, filer string
	tls                             pki.Files
	owner                           objectOwner
	cacheDir                        string
	cacheMiB                        int64
	deadline                        time.Duration
	metrics                         string
	logs                            logOptions
}

func (o *serveOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.runDir, "run-dir", "/run/holdfast", "`folder` with the keeper's sockets")
	flags.StringVar(&o.keeper, "keeper", "", "the keeper's `socket` (default: the mounter's socket in --run-dir)")
	flags.StringVar(&o.stateDir, "state-dir", "/var/lib/holdfast/mounter", "`folder` of this process's own, for what waits to be written; --dir for short")
	flags.StringVar(&o.filer, "filer", "", "`host:port` of the filer's gRPC port")
	flags.StringVar(&o.tls.CA, "tls-ca", "", "`file` with the certificate of the cluster's authority (default: a cluster without TLS)")
	flags.StringVar(&o.tls.Cert, "tls-cert", "", "`file` with this process's key and certificate; it is read again when it has changed")
	flags.Uint32Var(&o.owner.UID, "object-uid", 0, "`uid` that objects made over S3 are shown with")
	flags.Uint32Var(&o.owner.GID, "object-gid", 0, "`gid` that objects made over S3 are shown with")
	flags.StringVar(&o.cacheDir, "cache-dir", "", "`folder` of this process's own, for chunks that were read (default: cache in --state-dir)")
	flags.Int64Var(&o.cacheMiB, "cache-size", cache.DefaultLimit>>20, "what --cache-dir may take on the disk, in `MiB`, all included; 0 caches in memory only")
	flags.DurationVar(&o.deadline, "deadline", fuse.DefaultDeadline, "how long a call may wait for the cluster: then it gets EIO, that call alone")
	flags.StringVar(&o.metrics, "metrics-address", "", "`host:port` to tell metrics at (METRICS.md); no port is opened without it")
	o.logs.register(flags)
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "dir" {
			name = "state-dir"
		}
		return pflag.NormalizedName(name)
	})
}

// objectOwner is who objects belong to that were made over S3.
type objectOwner struct{ UID, GID uint32 }

// validate completes the options and says what is wrong with them.
func (o *serveOptions) validate() error {
	if o.keeper == "" {
		o.keeper = keeper.MounterSocket(o.runDir)
	}
	if o.filer == "" {
		return storage.Errorf(storage.Invalid, "--filer is needed: the host:port of the filer's gRPC port")
	}
	if !filepath.IsAbs(o.stateDir) || !filepath.IsAbs(o.keeper) {
		return storage.Errorf(storage.Invalid, "--state-dir, --run-dir and --keeper must be absolute paths")
	}
	if err := o.tls.Validate(); err != nil {
		return err
	}
	if o.deadline < time.Second {
		return storage.Errorf(storage.Invalid, "--deadline %v: must be a second or more", o.deadline)
	}
	if o.metrics != "" {
		if err := metrics.CheckAddress(o.metrics); err != nil {
			return err
		}
	}
	if o.cacheDir == "" {
		o.cacheDir = filepath.Join(o.stateDir, "cache")
	}
	c := o.cache()
	return c.Validate()
}

// cache of the node. Its chunks are told apart from another cluster's by the
// filer's address.
func (o *serveOptions) cache() cache.Options {
	if o.cacheMiB == 0 {
		return cache.Options{}
	}
	return cache.Options{Dir: o.cacheDir, Limit: o.cacheMiB << 20, Cluster: o.filer}
}

// args leads a worker to the same options.
func (o *serveOptions) args() []string {
	return append([]string{"worker", "--keeper", o.keeper, "--state-dir", o.stateDir, "--filer", o.filer, "--tls-ca", o.tls.CA, "--tls-cert", o.tls.Cert, "--object-uid", fmt.Sprint(o.owner.UID), "--object-gid", fmt.Sprint(o.owner.GID), "--cache-dir", o.cacheDir, "--cache-size", strconv.FormatInt(o.cacheMiB, 10), "--deadline", o.deadline.String()}, o.logs.args()...)
}

func newServe(stderr io.Writer) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the files of every mounted volume (unprivileged)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkUnprivileged(); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			logs := o.logs.beside("-parent")
			log, closeLog, err := logs.open(stderr, "mounter-parent")
			if err != nil {
				return err
			}
			defer closeLog()
			unlock, err := lockState(o.stateDir)
			if err != nil {
				return err
			}
			defer unlock()
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			p := parent{log: log, path: self, args: o.args(), stderr: stderr}
			if o.metrics != "" {
				port, err := openPort(cmd.Context(), o.metrics)
				if err != nil {
					return err
				}
				defer port.Close()
				p.port, p.address = port, o.metrics
			}
			return p.run(cmd.Context())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// lockState keeps a second mounter out of the folder.
func lockState(dir string) (func(), error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "serve.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, storage.Errorf(storage.InUse, "state folder %s: another mounter works there", dir)
	}
	return func() { _ = f.Close() }, nil
}

// parent keeps one worker alive.
type parent struct {
	log    *slog.Logger
	path   string
	args   []string
	stderr io.Writer
	// port is where a worker tells metrics, at address; nil without one.
	port    *os.File
	address string
	// started counts the workers.
	started int64
}

// run starts workers until ctx ends, and returns nil then.
func (p *parent) run(ctx context.Context) error {
	// The thread that starts a worker passes its no_new_privs on.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := noNewPrivileges(); err != nil {
		return err
	}
	quick := 0
	for ctx.Err() == nil {
		begun := time.Now()
		w, err := p.start(ctx)
		if err != nil {
			return err
		}
		exit := w.wait(ctx)
		if ctx.Err() != nil {
			p.log.Info("stopping the worker", "pid", w.cmd.Process.Pid)
			return w.stop()
		}
		w.lose()
		p.log.Error("the worker has died; starting another one", "pid", w.cmd.Process.Pid, "err", exit, "dur", time.Since(begun))
		if byItself(exit) && time.Since(begun) < quickDeath {
			quick++
		} else {
			quick = 0
		}
		if quick > freeStarts {
			timer := time.NewTimer(min(longestPause, time.Duration(quick-freeStarts)*100*time.Millisecond))
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	}
	return nil
}

// worker is a child.
type worker struct {
	cmd    *exec.Cmd
	life   *os.File // the other end of its lifeline
	reaped chan error
}

func (p *parent) start(ctx context.Context) (*worker, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	defer func() { _ = read.Close() }()
	// Not bound to a context: it is ended in two steps (stop).
	args := slices.Clone(p.args)
	if p.port != nil { // a worker of an older version, which knows neither, is not told
		args = append(args, "--metrics-address", p.address, "--worker-number", strconv.FormatInt(p.started+1, 10))
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.path, args...)
	cmd.Stdout, cmd.Stderr = p.stderr, p.stderr
	cmd.ExtraFiles = []*os.File{read}
	if p.port != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.port) // metricsFD
	}
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	p.started++
	p.log.Info("the worker is up", "pid", cmd.Process.Pid)
	w := &worker{cmd: cmd, life: write, reaped: make(chan error, 1)}
	go func() { w.reaped <- cmd.Wait() }()
	return w, nil
}

// wait returns when the worker is dead, reaped or not, or ctx ends.
func (w *worker) wait(ctx context.Context) error {
	tick := time.NewTicker(lingerCheck)
	defer tick.Stop()
	for {
		select {
		case err := <-w.reaped:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if w.zombie() {
				return errors.New("killed, with a thread that waits for its successor")
			}
		}
	}
}

// zombie reports whether the main thread has ended.
func (w *worker) zombie() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return ok && strings.HasPrefix(string(rest), "Z")
}

// lose lets go of a dead worker. One that lingers is reaped in the background.
func (w *worker) lose() { _ = w.life.Close() }

// stop ends the worker and waits for it.
func (w *worker) stop() error {
	defer w.lose()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the worker: %w", err)
	}
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case err := <-w.reaped:
		if err != nil {
			return fmt.Errorf("the worker: %w", err)
		}
		return nil
	case <-timer.C:
	}
	_ = w.cmd.Process.Kill()
	return storage.Errorf(storage.Unavailable, "the worker did not end within %v and was killed", stopGrace)
}

// byItself reports whether a worker chose to fail, rather than being killed.
func byItself(err error) bool {
	var exit *exec.ExitError
	return !errors.As(err, &exit) || exit.Exited()
}
