package driver

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/storage"
)

// Mounter mounts volumes on this node: the keeper, through an adapter in cmd.
// Errors are classified: InUse for a mount that is busy.
type Mounter interface {
	// Mount mounts a volume at target, a folder. config is JSON, MountConfig. The
	// same again is fine, and revives a mount that is not healthy.
	Mount(ctx context.Context, id, target string, o MountOptions, config []byte) error
	// Bind shows a mounted volume at one more folder.
	Bind(ctx context.Context, id, target string, o BindOptions) error
	// Unmount ends the mount or the bind at target. What is not mounted is fine.
	Unmount(ctx context.Context, target string) error
	// Settle returns when nothing of a volume that is not mounted waits on this node to
	// come to the cluster: of a mount that died, or of before a reboot.
	Settle(ctx context.Context, id string) error
	// Mounts lists what is mounted.
	Mounts(ctx context.Context) ([]Mounted, error)
	// Health says how a mounted volume is, soon, and touches nothing.
	Health(ctx context.Context, id string) (Health, error)
}

// MountOptions are those of all places of a volume.
type MountOptions struct {
	ReadOnly bool
	// Context is the SELinux context that all of it is shown with; empty for the usual.
	Context string
}

// BindOptions are those of one place of a volume. Set-user-id bits and devices have no
// effect at any.
type BindOptions struct{ ReadOnly, NoExec bool }

// Mounted is a volume that is mounted on this node.
type Mounted struct {
	ID     string
	Target string
	// Binds are the further places of it.
	Binds    []string
	ReadOnly bool
	// Group is who has the volume, by the volume_mount_group of its staging.
	Group *uint32
	// Inline: it is a pod's own, and Target is the pod's folder.
	Inline bool
	// Healthy is false while nobody answers its requests. Dead: nobody ever will.
	Healthy, Dead bool
}

// MountConfig is what a mounter is told of a volume. It carries no key: a mounter
// reads the record.
type MountConfig struct {
	Volume storage.VolumeID   `json:"volume"`
	Bucket storage.BucketName `json:"bucket"`
	// Prefix is the folder of the bucket that is the volume's root.
	Prefix   storage.Path `json:"prefix,omitempty"`
	ReadOnly bool         `json:"readOnly"`
	// Node is the name by which the record's leases know this one.
	Node string `json:"node,omitempty"`
	// Epoch of the lease under which a volume of one node was mounted: the mounter
	// changes the volume under it alone.
	Epoch uint64 `json:"epoch,omitempty"`
	// Objects is how the mount shows what was made over S3.
	Objects Objects `json:"objects,omitzero"`
	// CacheSize is what the volume may take of the node's chunk cache, in bytes; nil
	// when it has no bound of its own.
	CacheSize *int64 `json:"cacheSize,omitempty"`
	// Group is who shall have the volume.
	Group *uint32 `json:"group,omitempty"`
	// Groups are those that had it before: what they own is shown as Group's.
	Groups []uint32 `json:"groups,omitempty"`
	// Inline: the volume goes with its pod. The node asks, not the mounter.
	Inline bool `json:"inline,omitempty"`
	// Durability is what fsync means, empty for cluster; CommitDelay goes with node.
	Durability  Durability    `json:"durability,omitempty"`
	CommitDelay time.Duration `json:"commitDelay,omitempty"`
}

// mountConfig is what the mounter is told of a volume that this node has leased.
func (n *Node) mountConfig(r *storage.Record, readOnly bool, group *uint32) (MountConfig, error) {
	s, err := parseParams(r.Parameters)
	if err != nil {
		return MountConfig{}, storage.Errorf(storage.Corrupt, "record of volume %s: %w", r.ID, err)
	}
	c := MountConfig{Volume: r.ID, Bucket: r.Bucket, Prefix: r.Prefix, ReadOnly: readOnly, Node: n.o.NodeID, Objects: s.objects, CacheSize: s.cacheSize, Group: group, Inline: r.Inline != nil}
	if group != nil {
		c.Groups = r.Groups
	}
	if s.durability == NodeDurability {
		c.Durability, c.CommitDelay = s.durability, cmp.Or(s.commitDelay, defaultCommitDelay)
	}
	if r.Access == storage.Single {
		c.Epoch = r.Leases[n.o.NodeID].Epoch
	}
	return c, nil
}

const (
	// renewals are tried in each lease: two may fail before it ends.
	renewals = 3
	// statTimeout bounds a statfs; the kubelet gives up after a minute or two and
	// measures its volumes in a few workers.
	statTimeout = 5 * time.Second
	// maxNodeID is what Kubernetes takes into a CSINode; CSI's own limit is 256.
	maxNodeID = 192
)

// NodeDeps are what a Node stands on. Table may be nil: the kernel's is read then; and
// Reports: then nothing is reported.
type NodeDeps struct {
	Records storage.Records
	Reports storage.Reports
	Mounter Mounter
	Table   MountTable
	// Measure is Statfs in a process that is killed when ctx ends. It returns when
	// that process is gone, with the errno of statfs(2) somewhere in its error.
	Measure func(ctx context.Context, path string) (Usage, error)
	Log     *slog.Logger
}

// NodeOptions: NodeID is needed, and the same after every restart.
type NodeOptions struct {
	NodeID string
	// MaxVolumes is told to the scheduler; 0 means no limit.
	MaxVolumes int64
	// InlineMaxSize bounds an inline volume, whose size any pod's author may write; 0 is no
	// bound.
	InlineMaxSize size.Bytes
	// LeaseFor and LeaseGrace are storage's unless set, RenewEvery a third of
	// LeaseFor, StatTimeout 5 seconds, InlineWait (for a controller to make an inline
	// volume) 30.
	LeaseFor, LeaseGrace, RenewEvery, StatTimeout, InlineWait time.Duration
	// Now is this node's clock, for what people are told; the system's when nil.
	Now func() time.Time
}

// Validate says whether the options can work.
func (o NodeOptions) Validate() error {
	switch {
	case o.NodeID == "" || len(o.NodeID) > maxNodeID:
		return storage.Errorf(storage.Invalid, "node id %q: 1 to %d bytes are needed", o.NodeID, maxNodeID)
	case o.MaxVolumes < 0 || o.InlineMaxSize < 0 || o.LeaseFor < 0 || o.LeaseGrace < 0 || o.RenewEvery < 0 || o.StatTimeout < 0 || o.InlineWait < 0:
		return storage.Errorf(storage.Invalid, "node options must not be negative")
	case o.LeaseFor > storage.MaxLeaseFor || o.LeaseGrace > storage.MaxLeaseFor:
		return storage.Errorf(storage.Invalid, "leases of %s and %s: at most %s are possible", o.LeaseFor, o.LeaseGrace, storage.MaxLeaseFor)
	case o.LeaseFor > 0 && o.RenewEvery >= o.LeaseFor:
		return storage.Errorf(storage.Invalid, "leases of %s renewed every %s would end", o.LeaseFor, o.RenewEvery)
	}
	return nil
}

// Node is the CSI node service.
type Node struct {
	csi.UnimplementedNodeServer

	// Dependencies.
	records storage.Records
	reports storage.Reports
	mounter Mounter
	table   MountTable
	log     *slog.Logger

	// Fixed after New.
	o NodeOptions

	pending pending
	stats   stats
	told    told
	seen    storage.Sightings
	named   named
}

var _ csi.NodeServer = (*Node)(nil)

// NewNode makes the node service. Run has to run beside it.
func NewNode(d NodeDeps, o NodeOptions) (*Node, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.LeaseFor = cmp.Or(o.LeaseFor, storage.LeaseFor)
	o.LeaseGrace = cmp.Or(o.LeaseGrace, storage.LeaseGrace)
	o.RenewEvery = cmp.Or(o.RenewEvery, o.LeaseFor/renewals)
	o.InlineWait = cmp.Or(o.InlineWait, inlineWait)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.StatTimeout == 0 {
		o.StatTimeout = statTimeout
	}
	if d.Table == nil {
		d.Table = kernelTable{}
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{records: d.Records, reports: d.Reports, mounter: d.Mounter, table: d.Table, log: d.Log, o: o, stats: stats{measure: d.Measure}}, nil
}

// Register implements Service.
func (n *Node) Register(s grpc.ServiceRegistrar) { csi.RegisterNodeServer(s, n) }

// NodeGetCapabilities implements csi.NodeServer.
func (n *Node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// topologyKey and topologyValue are the one topology that there is: a node has the driver.
// Volumes can be had on every such node, and none says where it can be had. It is for
// external-provisioner, which does not know its own CSIStorageCapacity again when that is
// for all nodes: it removes each that it has made, and makes another one, without end.
const (
	topologyKey   = Name + "/driver"
	topologyValue = "true"
)

// NodeGetInfo implements csi.NodeServer.
func (n *Node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId: n.o.NodeID, MaxVolumesPerNode: n.o.MaxVolumes,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{topologyKey: topologyValue}},
	}, nil
}

// mounts is what the mounter has, with the questions that the operations ask.
type mounts []Mounted

func (n *Node) mounts(ctx context.Context) (mounts, error) { return n.mounter.Mounts(ctx) }

// of returns the mount of a volume, or nil.
func (m mounts) of(id string) *Mounted {
	for i := range m {
		if m[i].ID == id {
			return &m[i]
		}
	}
	return nil
}

// at returns whose mount or bind is at path, or nil.
func (m mounts) at(path string) *Mounted {
	for i := range m {
		if samePath(m[i].Target, path) || m[i].boundAt(path) {
			return &m[i]
		}
	}
	return nil
}

func (m *Mounted) boundAt(path string) bool {
	for _, b := range m.Binds {
		if samePath(b, path) {
			return true
		}
	}
	return false
}

// maxPath and maxElement are Linux's limits of a path and of a name in it.
const (
	maxPath    = 4095
	maxElement = 255
)

// needPath says whether path can be a place to mount at.
func needPath(what, path string) error {
	if path == "" {
		return storage.Errorf(storage.Invalid, "the %s is missing", what)
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
		return storage.Errorf(storage.Invalid, "the %s %q must be absolute, and not the root", what, path)
	}
	if strings.ContainsRune(path, 0) || len(path) > maxPath || slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return len(s) > maxElement }) {
		return storage.Errorf(storage.Invalid, "the %s %.64q… can be no path: at most %d bytes, %d between two slashes, and no zero byte are allowed", what, path, maxPath, maxElement)
	}
	return nil
}

func needID(id string) error {
	if id == "" {
		return storage.Errorf(storage.Invalid, "the volume id is missing")
	}
	return nil
}
