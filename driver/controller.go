package driver

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage"
)

// Preparer makes a bucket, or a folder of it, fit to be mounted. It may be
// repeated.
type Preparer interface {
	Prepare(ctx context.Context, b storage.BucketName, folder storage.Path) error
}

// Freer frees what mounts hold of a volume beside its bucket, files without a name
// whose node has died, when no node has the volume any more. kept is what it found
// there and nobody of us has made. It may be repeated.
type Freer interface {
	FreeHeld(ctx context.Context, id storage.VolumeID) (kept []string, err error)
}

// Counter looks at what lies in a bucket, or in a folder of it.
type Counter interface {
	// Exceeds reports whether that is more than most bytes, as a mount counts them. A
	// folder that is missing holds nothing.
	Exceeds(ctx context.Context, b storage.BucketName, folder storage.Path, most int64) (bool, error)
}

// ControllerDeps are what a Controller stands on. Capacity, Prepare, Place, Held and
// Content may be nil: GET_CAPACITY is not offered then, buckets are used as they come,
// parameters of placement are refused, nothing is held beside a bucket, and what lies
// in one is not counted.
type ControllerDeps struct {
	Records  storage.Records
	Buckets  storage.Buckets
	Access   storage.Access
	Capacity storage.Capacity
	Prepare  Preparer
	Place    storage.Placer
	Held     Freer
	Content  Counter
	Log      *slog.Logger
}

// Controller is the CSI controller service.
type Controller struct {
	csi.UnimplementedControllerServer

	// Dependencies.
	records  storage.Records
	buckets  storage.Buckets
	access   storage.Access
	capacity storage.Capacity
	prepare  Preparer
	placer   storage.Placer
	held     Freer
	content  Counter
	log      *slog.Logger

	pending pending
	retirer retirer
	seen    storage.Sightings
}

var _ csi.ControllerServer = (*Controller)(nil)

// NewController makes the controller service.
func NewController(d ControllerDeps) *Controller {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{
		records: d.Records, buckets: d.Buckets, access: d.Access,
		capacity: d.Capacity, prepare: d.Prepare, placer: d.Place, held: d.Held, content: d.Content, log: d.Log, retirer: newRetirer(),
	}
}

// Register implements Service.
func (c *Controller) Register(s grpc.ServiceRegistrar) { csi.RegisterControllerServer(s, c) }

// ControllerGetCapabilities implements csi.ControllerServer.
func (c *Controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	offered := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if c.capacity != nil {
		offered = append(offered, csi.ControllerServiceCapability_RPC_GET_CAPACITY)
	}
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range offered {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// The keys of a volume's context. The command line shows them; nodes read the
// record instead.
const (
	contextName   = "name"
	contextBucket = "bucket"
	contextAccess = "access"
	// contextPrefix and contextOnDelete are there where they are not the usual.
	contextPrefix   = "prefix"
	contextOnDelete = "onDelete"
	// The placement is there as far as it was asked for.
	contextReplication = "replication"
	contextDiskType    = "diskType"
	contextDataCenter  = "dataCenter"
	// contextPod is the pod of an inline volume.
	contextPod = "pod"
	// contextPhase is there for a volume that is not ready.
	contextPhase = "phase"
	// contextLeases is what ControllerGetVolume tells beside, as JSON: by which nodes
	// the volume is used, since and until when.
	contextLeases = "leases"
)

func toCSI(r storage.Record) *csi.Volume {
	v := &csi.Volume{
		VolumeId:      string(r.ID),
		CapacityBytes: r.Capacity,
		VolumeContext: map[string]string{
			contextName: r.Name, contextBucket: string(r.Bucket), contextAccess: string(r.Access),
		},
	}
	if r.Prefix != "" {
		v.VolumeContext[contextPrefix] = string(r.Prefix)
	}
	if r.OnDelete != "" && r.OnDelete != storage.DeleteData {
		v.VolumeContext[contextOnDelete] = string(r.OnDelete)
	}
	for key, value := range map[string]string{
		contextReplication: r.Placement.Replication, contextDiskType: r.Placement.DiskType, contextDataCenter: r.Placement.DataCenter,
	} {
		if value != "" {
			v.VolumeContext[key] = value
		}
	}
	if r.Inline != nil {
		v.VolumeContext[contextPod] = r.Inline.Pod.Namespace + "/" + r.Inline.Pod.Name
	}
	if r.Phase != storage.Ready {
		v.VolumeContext[contextPhase] = string(r.Phase)
	}
	return v
}

// leases are those that have to be honoured, as JSON.
func (c *Controller) leases(r *storage.Record) string {
	type lease struct {
		Node  string    `json:"node"`
		Since time.Time `json:"since,omitzero"`
		Until time.Time `json:"until,omitzero"`
		Path  string    `json:"path,omitempty"`
	}
	list := []lease{}
	for _, node := range c.seen.Live(r) {
		l := r.Leases[node]
		list = append(list, lease{node, l.Since, l.Until, l.Path})
	}
	b, err := json.Marshal(list)
	if err != nil { // a time that JSON has no form for
		return "[]"
	}
	return string(b)
}

// now is this machine's clock, for what people are told.
func now() time.Time { return time.Now() }
