package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-csi/holdfast/cmd/internal/metrics"
	"github.com/holdfast-csi/holdfast/storage"
)

// collectFor bounds what is asked for a scrape.
const collectFor = 5 * time.Second

// metricsOptions are the flags of what a service tells Prometheus.
type metricsOptions struct{ address string }

func (o *metricsOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.address, "metrics-address", "", "host:port to tell metrics at (METRICS.md); no port is opened without it")
}

// telling is a service that tells metrics; a nil one tells none.
type telling struct {
	set      *metrics.Set
	listener net.Listener
	ready    func(context.Context) error
	log      *slog.Logger
	called   func(took time.Duration, labels ...string)
}

// open listens, so that a wrong address is found at once. serve has to follow.
func (o *metricsOptions) open(ctx context.Context, of metrics.Process, log *slog.Logger, ready func(context.Context) error) (*telling, error) {
	if o.address == "" {
		return nil, nil
	}
	l, err := metrics.Listen(ctx, o.address)
	if err != nil {
		return nil, err
	}
	set := metrics.New(of, readVersion().Version)
	return &telling{set: set, listener: l, ready: ready, log: log, called: set.Histogram(metrics.CSICall, metrics.Calls)}, nil
}

func (t *telling) collect(f func(*metrics.Tell)) {
	if t != nil {
		t.set.Collect(f)
	}
}

// observe notes a call that has ended.
func (t *telling) observe(method string, code codes.Code, took time.Duration) {
	if t != nil {
		t.called(took, method, code.String())
	}
}

// serve runs until ctx ends.
func (t *telling) serve(ctx context.Context) error {
	if t == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return t.set.Serve(ctx, t.listener, t.ready, t.log)
}

// together runs all until ctx ends or the first of them does, and waits for all. That a
// context has ended is no error.
func together(ctx context.Context, all ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(all))
	for _, run := range all {
		go func() { ended <- run(ctx) }()
	}
	var errs []error
	for range all {
		err := <-ended
		cancel()
		if !storage.IsContext(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func newMetrics(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "metrics",
		Short:  "Print METRICS.md: what controller, node and mounter tell Prometheus",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.stdout, metrics.Document())
			return err
		},
	}
}
