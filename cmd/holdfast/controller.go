package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/cmd/internal/metrics"
	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

func newController(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "controller",
		Short:  "Serve the CSI controller (started by holdfast up, and by the chart)",
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	var o controllerOptions
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "unix socket to serve CSI on")
	f.StringVar(&o.filer, "filer", "", "address of the filer's gRPC port, host:port")
	o.tls.register(f)
	o.metrics.register(f)
	f.StringVar(&o.s3Endpoint, "s3-endpoint", "", "URL of the S3 gateway")
	f.StringVar(&o.adminKeys, "admin-keys-file", "", "file with the administrator's S3 keys")
	required(cmd, "socket", "filer", "s3-endpoint", "admin-keys-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.run(cmd.Context(), a.logger())
	}
	return cmd
}

type controllerOptions struct {
	socket, filer, s3Endpoint, adminKeys string
	tls                                  tlsFiles
	metrics                              metricsOptions
}

func (o controllerOptions) run(ctx context.Context, log *slog.Logger) (err error) {
	keys, err := state.ReadKeys(o.adminKeys)
	if err != nil {
		return fmt.Errorf("admin keys: %w", err)
	}
	secret, err := o.tls.TLS()
	if err != nil {
		return err
	}
	store, err := seaweed.Open(ctx, seaweed.Options{Filer: o.filer, TLS: secret, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s3, err := s3client.New(s3client.Options{Endpoint: o.s3Endpoint, Keys: keys, TLS: secret})
	if err != nil {
		return err
	}
	controller := driver.NewController(driver.ControllerDeps{
		Records: store, Buckets: s3, Access: s3.Settled(store), Capacity: store, Prepare: store, Place: store, Held: store, Content: store, Log: log,
	})
	identity := driver.NewIdentity(driver.IdentityOptions{
		Version: readVersion().Version,
		Ready: func(ctx context.Context) error {
			_, err := store.ListRecords(ctx, "", 1)
			return err
		},
	})
	told, err := o.metrics.open(ctx, metrics.Controller, log, identity.Ready)
	if err != nil {
		return err
	}
	told.collect(func(tell *metrics.Tell) {
		ctx, cancel := context.WithTimeout(ctx, collectFor)
		defer cancel()
		phases, err := controller.Phases(ctx)
		if err != nil {
			return // missing, not 0
		}
		for phase, n := range phases {
			tell.Value(metrics.Volumes, float64(n), string(phase))
		}
	})
	return together(ctx,
		controller.Run,
		told.serve,
		func(ctx context.Context) error {
			return driver.Serve(ctx, o.socket, driver.ServeOptions{Log: log, Observe: told.observe}, identity, controller, driver.NewKeys(controller))
		})
}

// logger writes JSON lines to standard error, which whoever runs a service keeps.
func (a *app) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(a.stderr, nil)) }

// required marks flags that a service cannot do without.
func required(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that this program does not define
		}
	}
}
