package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file says who answers on a socket, that it lives, and whether it is ready:
// two questions with two answers. Upstream's livenessprobe asks Probe and has the
// process killed when that says "not ready"; a new process would find the same
// cluster away, come later each time (the kubelet's back-off goes up to five minutes),
// and could not do meanwhile what needs no cluster: publishing what is staged, taking
// mounts away. So Probe tells that the process lives, and no more. Whether what it
// stands on answers is said by gRPC's own health service on the same socket
// (ReadyService), which "holdfast up" waits for, and by /readyz beside the metrics.
// Probe's "not ready" until the first contact was the design that lost: on a cluster
// that starts together with its driver it begins the back-off.

// Name of the driver, as StorageClasses call it.
const Name = "csi.holdfast.io"

// IdentityOptions say who answers.
type IdentityOptions struct {
	// Name is csi.holdfast.io unless set.
	Name    string
	Version string
	// Ready returns nil when what the services stand on answers. Nil means always.
	Ready func(context.Context) error
}

// Identity is the CSI identity service.
type Identity struct {
	csi.UnimplementedIdentityServer
	healthpb.UnimplementedHealthServer
	o IdentityOptions
}

var (
	_ csi.IdentityServer    = (*Identity)(nil)
	_ healthpb.HealthServer = (*Identity)(nil)
)

const (
	// ReadyService is the name by which gRPC's health service is asked whether what the
	// services stand on answers. The empty name asks whether the process lives.
	ReadyService = "ready"
	// readyWithin bounds that question.
	readyWithin = 3 * time.Second
)

// NewIdentity makes the identity service.
func NewIdentity(o IdentityOptions) *Identity {
	if o.Name == "" {
		o.Name = Name
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	return &Identity{o: o}
}

// Register implements Service.
func (i *Identity) Register(s grpc.ServiceRegistrar) {
	csi.RegisterIdentityServer(s, i)
	healthpb.RegisterHealthServer(s, i)
}

// GetPluginInfo implements csi.IdentityServer.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.o.Name, VendorVersion: i.o.Version}, nil
}

// GetPluginCapabilities implements csi.IdentityServer. They are those of the
// plugin as a whole, so the node's socket names the controller service too.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS, // NodeGetInfo says why
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

// Probe implements csi.IdentityServer: the process lives. It asks nobody, so that
// nobody who is away gets it killed.
func (i *Identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// Ready returns nil when what the services stand on answers, within seconds.
func (i *Identity) Ready(ctx context.Context) error {
	if i.o.Ready == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	err := i.o.Ready(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return storage.Errorf(storage.Unavailable, "no answer within %s: %w", readyWithin, err)
	}
	return err
}

// Check implements healthpb.HealthServer.
func (i *Identity) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	status := healthpb.HealthCheckResponse_SERVING
	switch req.GetService() {
	case "":
	case ReadyService:
		if i.Ready(ctx) != nil {
			status = healthpb.HealthCheckResponse_NOT_SERVING
		}
	default:
		return nil, storage.Errorf(storage.NotFound, "health of service %.64q: it is told of %q and of the empty name", req.GetService(), ReadyService)
	}
	return &healthpb.HealthCheckResponse{Status: status}, nil
}

// List implements healthpb.HealthServer.
func (i *Identity) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	all := map[string]*healthpb.HealthCheckResponse{}
	for _, name := range []string{"", ReadyService} {
		said, err := i.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			return nil, fmt.Errorf("health of service %q: %w", name, err)
		}
		all[name] = said
	}
	return &healthpb.HealthListResponse{Statuses: all}, nil
}
