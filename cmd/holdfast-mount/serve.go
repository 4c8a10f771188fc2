package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	// quickRestarts workers in a row that lived shorter than healthyAfter are
	// replaced at once, then the parent waits restartPause between two: a crash
	// must not stall applications, and a crash loop must not eat the node.
	quickRestarts = 5
	healthyAfter  = 10 * time.Second
	restartPause  = time.Second
	// workerGrace is how long a worker has to end when told to.
	workerGrace = 20 * time.Second
)

func newServe() *cobra.Command {
	var (
		logs logFlags
		w    workerFlags
	)
	cmd := &cobra.Command{
		Use:   "serve --run-dir DIR --state-dir DIR --filer HOST:PORT",
		Short: "Serve the volumes of this node, without any privilege",
		Long: "serve is a tiny parent and its worker. The worker gets the mounts from the keeper\n" +
			"and answers the kernel; when it dies the parent starts another one at once, which\n" +
			"gets the same mounts. It refuses to run as root or with capabilities.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := noPrivileges(); err != nil {
				return err
			}
			if err := w.validate(); err != nil {
				return err
			}
			log, closeLog := logs.open()
			defer closeLog()
			log.Info("mounter starts", "version", version)
			parent(cmd.Context(), log, append([]string{"worker"}, os.Args[2:]...))
			return nil
		},
	}
	logs.add(cmd)
	w.add(cmd)
	return cmd
}

// parent keeps one worker alive until ctx ends.
func parent(ctx context.Context, log *slog.Logger, args []string) {
	// A worker dies with its parent, that is with this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	quick := 0
	for ctx.Err() == nil {
		start := time.Now()
		err := worker(ctx, args)
		if ctx.Err() != nil {
			return
		}
		log.Error("the worker ended; another one starts", "err", err, "dur", time.Since(start))
		if quick++; time.Since(start) > healthyAfter {
			quick = 0
		}
		if quick > quickRestarts {
			select {
			case <-ctx.Done():
			case <-time.After(restartPause):
			}
		}
	}
}

func worker(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = workerGrace
	return cmd.Run()
}
