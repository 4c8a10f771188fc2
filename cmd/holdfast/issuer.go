package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/issuer"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

func newIssuer(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "issuer",
		Short:  "Keep certificates and keys as Secrets (started by the chart)",
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	var o issuerOptions
	f := cmd.Flags()
	f.StringVar(&o.namespace, "namespace", "", "namespace of the Secrets")
	f.StringVar(&o.prefix, "prefix", "holdfast", "what the Secrets' names begin with")
	f.StringVar(&o.owner, "owner", "", "Deployment that the Secrets go with, but for those that the data needs")
	f.StringVar(&o.keyring.Dir, "dir", "/etc/holdfast", "folder in which each holder has its Secret mounted")
	f.StringVar(&o.keyring.FilerDir, "filer-dir", "/data/leveldb2", "folder of the filer's names")
	f.StringArrayVar(&o.addresses, "address", nil, "ROLE=NAME, a DNS name or IP address by which master, volume, filer or s3 is reached; may be given again")
	f.BoolVar(&o.keyring.S3TLS, "s3-tls", false, "make a certificate for S3 clients to see")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file that leads to the API server (default: the one of this pod)")
	f.StringVar(&o.health, "health-address", "", "HOST:PORT to answer /healthz and /readyz on")
	required(cmd, "namespace")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a.logger()) }
	return cmd
}

type issuerOptions struct {
	namespace, prefix, owner, kubeconfig, health string
	addresses                                    []string
	keyring                                      cluster.KeyringOptions
}

func (o issuerOptions) run(ctx context.Context, log *slog.Logger) error {
	o.keyring.Clients = stack.Clients()
	o.keyring.Addresses = map[string][]string{}
	for _, a := range o.addresses {
		role, name, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return storage.Errorf(storage.Invalid, "--address %q: must be ROLE=NAME", a)
		}
		o.keyring.Addresses[role] = append(o.keyring.Addresses[role], name)
	}
	keyring, err := cluster.NewKeyring(o.keyring)
	if err != nil {
		return err
	}
	client, err := api.Connect(o.kubeconfig, "holdfast-issuer")
	if err != nil {
		return err
	}
	server := issuer.Connected(client, o.namespace)
	defer server.Close()
	options := issuer.Options{Namespace: o.namespace, Prefix: o.prefix}
	if o.owner != "" {
		if options.Owner, err = server.Deployment(ctx, o.owner); err != nil {
			return err
		}
	}
	i, err := issuer.New(issuer.Deps{Secrets: server.Secrets(), Keyring: keyring, Warn: server.Warn, Log: log}, options)
	if err != nil {
		return err
	}
	stop, err := serveHealth(ctx, o.health, i.Ready)
	if err != nil {
		return err
	}
	defer stop()
	log.InfoContext(ctx, "keeping Secrets", "op", "issue")
	return i.Run(ctx)
}

// headerTimeout bounds who says nothing.
const headerTimeout = 5 * time.Second

// serveHealth answers /healthz, always, and /readyz, by ready. Without an address it
// does nothing. stop ends it.
func serveHealth(ctx context.Context, address string, ready func() error) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("health address: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // it ends by stop alone
	}()
	return func() {
		_ = server.Close()
		<-done
	}, nil
}
