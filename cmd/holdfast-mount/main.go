// Command holdfast-mount is the data plane: the keeper, which alone is
// privileged, and the mounter, which serves the volumes.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"gopkg.in/natefinch/lumberjack.v2"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "holdfast-mount: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// run executes one command line.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	root := &cobra.Command{
		Use:   "holdfast-mount",
		Short: "Mount volumes: the privileged keeper, and the mounter that serves them",
		Long: "holdfast-mount has two long-running commands. The keeper is the only privileged\n" +
			"process of Holdfast: it mounts, and keeps the descriptors of the mounts. The\n" +
			"mounter (serve) has no privileges: it gets the descriptors from the keeper and\n" +
			"answers the kernel. `holdfast up` starts both.",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetArgs(args)
	root.AddCommand(newKeeper(), newServe(), newWorker(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(stdout, "holdfast-mount %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	})
	return root.ExecuteContext(ctx)
}

// logFlags are the flags of every long-running command.
type logFlags struct {
	file  string
	debug bool
}

func (l *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.file, "log-file", "", "write the log here, rotated at 10 MiB (default: standard error)")
	cmd.Flags().BoolVar(&l.debug, "debug", false, "log more")
}

// open returns the logger, and what closes it.
func (l *logFlags) open() (*slog.Logger, func()) {
	var out io.Writer = os.Stderr
	closeLog := func() {}
	if l.file != "" {
		rotated := &lumberjack.Logger{Filename: l.file, MaxSize: 10, MaxBackups: 3}
		out, closeLog = rotated, func() { _ = rotated.Close() }
	}
	level := slog.LevelInfo
	if l.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})).With("pid", os.Getpid()), closeLog
}
