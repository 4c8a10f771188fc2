package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/privilege"
	"github.com/holdfast-csi/holdfast/cmd/internal/metrics"
	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

const dropFlag = "drop-capabilities"

// The main goroutine stays on the main thread: that one has the signal by which
// this process dies with its supervisor, and keeps it when it executes the program
// anew without capabilities. Any other thread would have none.
func init() { runtime.LockOSThread() }

func newNode(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "node",
		Short:  "Serve the CSI node service (started by holdfast up, and by the chart)",
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	var o nodeOptions
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "unix socket to serve CSI on")
	f.StringVar(&o.filer, "filer", "", "address of the filer's gRPC port, host:port")
	o.tls.register(f)
	o.metrics.register(f)
	f.StringVar(&o.keeper, "keeper-socket", "", "the keeper's socket for nodes")
	f.StringVar(&o.nodeID, "node-id", "", "name of this node, the same after each restart")
	f.Int64Var(&o.maxVolumes, "max-volumes", 0, "how many volumes the scheduler may bring to this node; 0 is no limit")
	f.Var(&o.inlineMax, "inline-max-size", "how large an inline volume may be, whose size any pod's author may write; without it there is no bound")
	f.DurationVar(&o.lease, "lease", storage.LeaseFor, "how long this node keeps its volumes from others when it falls silent")
	drop := f.Bool(dropFlag, false, "give up all capabilities first")
	required(cmd, "socket", "filer", "keeper-socket", "node-id")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *drop {
			if err := privilege.Drop(slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return arg == "--"+dropFlag })); err != nil {
				return err
			}
		}
		return o.run(cmd.Context(), a.logger())
	}
	return cmd
}

type nodeOptions struct {
	socket, filer, keeper, nodeID string
	tls                           tlsFiles
	metrics                       metricsOptions
	maxVolumes                    int64
	inlineMax                     size.Bytes
	lease                         time.Duration
}

func (o nodeOptions) run(ctx context.Context, log *slog.Logger) (err error) {
	secret, err := o.tls.TLS()
	if err != nil {
		return err
	}
	store, err := seaweed.Open(ctx, seaweed.Options{Filer: o.filer, TLS: secret, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	mounter := keeperMounter{keeper.NewNode(o.keeper)}
	node, err := driver.NewNode(
		driver.NodeDeps{Records: store, Reports: store, Mounter: mounter, Measure: statfs, Log: log},
		driver.NodeOptions{NodeID: o.nodeID, MaxVolumes: o.maxVolumes, InlineMaxSize: o.inlineMax, LeaseFor: o.lease, LeaseGrace: min(storage.LeaseGrace, o.lease)},
	)
	if err != nil {
		return err
	}
	identity := driver.NewIdentity(driver.IdentityOptions{
		Version: readVersion().Version,
		Ready: func(ctx context.Context) error {
			_, err := mounter.Mounts(ctx)
			return err
		},
	})
	told, err := o.metrics.open(ctx, metrics.Node, log, identity.Ready)
	if err != nil {
		return err
	}
	told.collect(func(tell *metrics.Tell) { tellVolumes(ctx, node, tell) })
	return together(ctx,
		node.Run,
		told.serve,
		func(ctx context.Context) error {
			return driver.Serve(ctx, o.socket, driver.ServeOptions{Log: log, Observe: told.observe}, identity, node)
		})
}

// tellVolumes leaves out what is not known.
func tellVolumes(ctx context.Context, node *driver.Node, tell *metrics.Tell) {
	all, err := node.Figures(ctx)
	if err != nil {
		return
	}
	for _, v := range all {
		for _, state := range v.States {
			tell.Bool(metrics.VolumeState, true, v.ID, state)
		}
		if v.Usage == nil {
			continue
		}
		tell.Value(metrics.VolumeCapacity, float64(v.Usage.Total), v.ID)
		tell.Value(metrics.VolumeUsed, float64(v.Usage.Used), v.ID)
		tell.Value(metrics.VolumeAvailable, float64(v.Usage.Available), v.ID)
		if v.Usage.Files > 0 {
			tell.Value(metrics.VolumeInodes, float64(v.Usage.Files), v.ID)
			tell.Value(metrics.VolumeInodesFree, float64(v.Usage.FilesFree), v.ID)
		}
	}
}
