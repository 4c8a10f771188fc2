package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Name of the driver, as StorageClasses call it.
const Name = "csi.holdfast.io"

// IdentityOptions say who answers.
type IdentityOptions struct {
	// Name is csi.holdfast.io unless set.
	Name    string
	Version string
	// Ready returns nil when the services can work. Nil means always.
	Ready func(context.Context) error
}

// Identity is the CSI identity service.
type Identity struct {
	csi.UnimplementedIdentityServer
	o IdentityOptions
}

var _ csi.IdentityServer = (*Identity)(nil)

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
func (i *Identity) Register(s grpc.ServiceRegistrar) { csi.RegisterIdentityServer(s, i) }

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
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

// Probe implements csi.IdentityServer. Not being ready is an answer and not an
// error: an error would get the process restarted, which helps nobody whose
// store is away.
func (i *Identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	ready := i.o.Ready == nil || i.o.Ready(ctx) == nil
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(ready)}, nil
}
