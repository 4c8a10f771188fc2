package stack

import (
	"context"
	"errors"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

const (
	controllerName = "controller"
	nodeName       = "node"
	// serviceStop is for the calls under way.
	serviceStop = 10 * time.Second
)

// services are the two CSI services. Both die with the supervisor.
func services(o Options, program string, c *cluster.Cluster, nodeID string) []supervise.Spec {
	accounts, at := o.accounts(), c.Endpoints()
	controller := supervise.Spec{
		Name: controllerName,
		Path: program,
		Args: append([]string{
			"controller",
			"--socket", o.Dir.ControllerSocket(),
			"--filer", at.FilerGRPC,
			"--s3-endpoint", at.S3URL,
			"--admin-keys-file", o.Dir.AdminKeys(),
		}, certificate(c, controllerName)...),
		LogFile:   o.Dir.Log(controllerName),
		StopGrace: serviceStop,
		Ready:     answers(o.Dir.ControllerSocket()),
	}
	node := supervise.Spec{
		Name: nodeName,
		Path: program,
		Args: append([]string{
			"node",
			"--socket", o.Dir.NodeSocket(),
			"--filer", at.FilerGRPC,
			"--node-id", nodeID,
			"--keeper-socket", keeper.NodeSocket(o.Dir.Run()),
		}, certificate(c, nodeName)...),
		LogFile:   o.Dir.Log(nodeName),
		StopGrace: serviceStop,
		Ready:     answers(o.Dir.NodeSocket()),
	}
	if o.Lease != "" {
		node.Args = append(node.Args, "--lease", o.Lease)
	}
	if os.Getuid() == 0 {
		controller.User = serviceUser(accounts.Services)
		node.Args = append(node.Args, "--drop-capabilities")
	}
	return []supervise.Spec{controller, node}
}

// Clients are those of us who speak to the cluster, here and in Kubernetes.
func Clients() []cluster.Client {
	return []cluster.Client{
		{Name: controllerName, Master: true}, // it asks which volume servers there are
		{Name: nodeName},
		{Name: mounterName},
	}
}

// clients are they, each with a certificate that it alone can read.
func (o Options) clients() []cluster.Client {
	a := o.accounts()
	owners := map[string]state.Account{controllerName: a.Services, nodeName: a.Node, mounterName: a.Mounter}
	all := Clients()
	for i := range all {
		owner := owners[all[i].Name]
		all[i].Owner = &pki.Owner{UID: uint32(owner.UID), GID: uint32(owner.GID)}
	}
	return all
}

// certificate is the flags that lead a client to its certificate.
func certificate(c *cluster.Cluster, name string) []string {
	f := c.Files(name)
	return []string{"--tls-ca", f.CA, "--tls-cert", f.Cert}
}

// serviceUser is an account as supervise has it.
func serviceUser(a state.Account) *supervise.User {
	return &supervise.User{UID: uint32(a.UID), GID: uint32(a.GID)}
}

// answers returns once the CSI service behind a socket says that what it stands on
// answers it.
func answers(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		health := healthpb.NewHealthClient(conn)
		return supervise.Poll(ctx, pollEvery, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: driver.ReadyService}, grpc.WaitForReady(true))
			if err == nil && resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				return errors.New("it says that it is not ready")
			}
			return err
		})
	}
}
