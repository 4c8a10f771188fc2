package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// workerFlags say where the worker finds its peers.
type workerFlags struct {
	runDir, stateDir, filer string
}

func (w *workerFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&w.runDir, "run-dir", "", "folder of the keeper's sockets")
	f.StringVar(&w.stateDir, "state-dir", "", "folder for content that waits for its commit")
	f.StringVar(&w.filer, "filer", "", "the filer's gRPC address, HOST:PORT")
	for _, name := range []string{"run-dir", "state-dir", "filer"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was just defined
		}
	}
}

func (w *workerFlags) validate() error {
	if err := (seaweed.Options{Filer: w.filer}).Validate(); err != nil {
		return fmt.Errorf("--filer: %w", err)
	}
	if info, err := os.Stat(w.stateDir); err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("--state-dir: %s is not a folder", w.stateDir)
	}
	if !filepath.IsAbs(w.runDir) {
		return fmt.Errorf("--run-dir: %q must be an absolute path", w.runDir)
	}
	return nil
}

// newWorker is what serve starts; people start serve.
func newWorker() *cobra.Command {
	var (
		logs logFlags
		w    workerFlags
	)
	cmd := &cobra.Command{
		Use: "worker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := noPrivileges(); err != nil {
				return err
			}
			if err := w.validate(); err != nil {
				return err
			}
			log, closeLog := logs.open()
			defer closeLog()
			cluster, err := seaweed.Open(cmd.Context(), seaweed.Options{Filer: w.filer, Logger: log})
			if err != nil {
				return err
			}
			defer cluster.Close() //nolint:errcheck // the process ends
			m := newMounter(cluster, w.stateDir, log)
			err = keeper.Attach(cmd.Context(), keeper.MounterSocket(w.runDir), m, keeper.AttachOptions{Log: log})
			m.close(context.WithoutCancel(cmd.Context()))
			if cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	logs.add(cmd)
	w.add(cmd)
	return cmd
}
