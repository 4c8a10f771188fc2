package csisanity

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// csiClients speak to the two sockets of an installation, as the kubelet and the
// sidecars do.
type csiClients struct {
	controller csi.ControllerClient
	node       csi.NodeClient
}

func (in *installation) csi(t *testing.T) csiClients {
	t.Helper()
	dial := func(socket string) *grpc.ClientConn {
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	at := in.mustStatus(t).Endpoints
	return csiClients{csi.NewControllerClient(dial(at.Controller)), csi.NewNodeClient(dial(at.Node))}
}

// oneWriter is the capability of a volume of one node.
func oneWriter() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

// adminKeys are a volume without a bucket, for the administrator.
func (in *installation) adminKeys(t *testing.T, s status) *volume {
	t.Helper()
	b, err := os.ReadFile(s.Endpoints.AdminKeys)
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	return &volume{in: in, Endpoint: s.Endpoints.S3, Access: keys.Access, Secret: keys.Secret}
}
