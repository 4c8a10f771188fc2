package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/kube/companion"
	"github.com/holdfast-csi/holdfast/driver/kube/s3secret"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// podNamespace is where a pod finds its own namespace.
const podNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

const companionLong = `Speak to the Kubernetes API server: keep a Secret with S3 keys beside the claims
that ask for one, tell claims and pods by events what is wrong with their volumes,
and end the leases of nodes that are given up. It runs beside the controller; of
several one works.`

func newCompanion(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "companion",
		Short:  "Speak to the Kubernetes API server (started by the chart)",
		Long:   companionLong,
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	var o companionOptions
	f := cmd.Flags()
	f.StringVar(&o.filer, "filer", "", "address of the filer's gRPC port, host:port")
	o.tls.register(f)
	f.StringVar(&o.controller, "controller-socket", "", "the controller's CSI socket, to ask what is wrong with volumes (default: only what nodes report is told)")
	f.StringVar(&o.endpoint.URL, "s3-endpoint", "", "URL of the S3 gateway as pods reach it, for their Secrets")
	f.StringVar(&o.endpoint.Region, "s3-region", region, "region that the Secrets name")
	f.StringVar(&o.caFile, "s3-ca-file", "", "file with the certificate of the authority of an https endpoint, for the Secrets (default: none)")
	f.StringArrayVar(&o.namespaces, "secret-namespace", nil, "namespace in which claims may have a Secret with their S3 keys; may be repeated (default: nowhere)")
	f.StringVar(&o.kube.Kubeconfig, "kubeconfig", "", "file that says how to reach the API server (default: what a pod is given)")
	f.StringVar(&o.kube.Namespace, "namespace", "", "namespace of the companion, for the Lease by which one of several works (default: the pod's)")
	f.StringVar(&o.kube.Identity, "identity", "", "name of this companion among several (default: the pod's, or one that is drawn)")
	required(cmd, "filer", "s3-endpoint")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return o.run(cmd.Context(), a.logger())
	}
	return cmd
}

type companionOptions struct {
	filer, caFile, controller string
	tls                       tlsFiles
	endpoint                  s3secret.Endpoint
	namespaces                []string
	kube                      companion.Options
}

func (o companionOptions) run(ctx context.Context, log *slog.Logger) (err error) {
	klog.SetSlogLogger(log) // client-go's own words
	if o.kube.Namespace == "" {
		b, err := os.ReadFile(podNamespace)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("namespace: %w", err)
		}
		o.kube.Namespace = strings.TrimSpace(string(b))
	}
	if o.kube.Identity == "" {
		o.kube.Identity = os.Getenv("POD_NAME")
	}
	if o.caFile != "" {
		if o.endpoint.CA, err = os.ReadFile(o.caFile); err != nil {
			return fmt.Errorf("authority of the S3 endpoint: %w", err)
		}
	}
	o.kube.Driver, o.kube.Version = driver.Name, readVersion().Version
	o.kube.Secrets = s3secret.Options{Namespaces: o.namespaces, Endpoint: o.endpoint, Own: driver.OwnContent}
	if err := o.kube.Validate(); err != nil { // before anything is opened
		return err
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
	deps := companion.Deps{Records: store, Reports: store, Log: log}
	if o.controller != "" {
		conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(o.controller, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return fmt.Errorf("the controller's socket: %w", err)
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		deps.Health = healthOf(csi.NewControllerClient(conn))
	}
	c, err := companion.New(deps, o.kube)
	if err != nil {
		return err
	}
	if err := c.Run(ctx); !storage.IsContext(err) {
		return err
	}
	return nil
}

// healthPage is how many volumes that are not well one call lists.
const healthPage = 500

// healthOf asks the controller which volumes are not well.
func healthOf(c csi.ControllerClient) func(context.Context) (map[storage.VolumeID][]storage.Finding, error) {
	return func(ctx context.Context) (map[storage.VolumeID][]storage.Finding, error) {
		found := map[storage.VolumeID][]storage.Finding{}
		for token := ""; ; {
			resp, err := c.ControllerListVolumeHealth(ctx, &csi.ControllerListVolumeHealthRequest{MaxEntries: healthPage, StartingToken: token})
			if err != nil {
				return nil, err
			}
			for _, h := range resp.GetEntries() {
				found[storage.VolumeID(h.GetVolumeId())] = driver.Findings(h.GetHealthStatuses())
			}
			if token = resp.GetNextToken(); token == "" {
				return found, nil
			}
		}
	}
}
