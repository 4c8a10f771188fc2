package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/doctor"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage"
)

// Volume is what is known of one.
type Volume struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Bucket string `json:"bucket"`
	// Prefix is the folder of the bucket that is the volume; all of it when empty.
	Prefix string `json:"prefix,omitempty"`
	// OnDelete is what a deletion does: delete, retain or archive.
	OnDelete storage.OnDelete   `json:"on_delete"`
	Size     int64              `json:"size"`
	Access   storage.AccessMode `json:"access"`
	// Placement is what was asked for of where the content is stored.
	Placement storage.Placement `json:"placement,omitzero"`
	// Phase is ready, or says that a creation or a deletion is to be finished by
	// repeating it.
	Phase string `json:"phase"`
	// Mounts are the directories where this machine has it.
	Mounts []string `json:"mounts"`

	context map[string]string
}

// The keys of a volume's context that the driver promises.
const (
	contextName   = "name"
	contextBucket = "bucket"
	contextAccess = "access"
	contextPhase  = "phase" // not there when ready
	contextLeases = "leases"
	// These two are not there where they are the usual.
	contextPrefix   = "prefix"
	contextOnDelete = "onDelete"
	// These are there as far as they were asked for.
	contextReplication = "replication"
	contextDiskType    = "diskType"
	contextDataCenter  = "dataCenter"
)

func fromCSI(v *csi.Volume) Volume {
	vc := v.GetVolumeContext()
	phase := vc[contextPhase]
	if phase == "" {
		phase = string(storage.Ready)
	}
	onDelete := storage.OnDelete(vc[contextOnDelete])
	if onDelete == "" {
		onDelete = storage.DeleteData
	}
	return Volume{
		Phase:    phase,
		Prefix:   vc[contextPrefix],
		OnDelete: onDelete,
		Name:     vc[contextName],
		ID:       v.GetVolumeId(),
		Bucket:   vc[contextBucket],
		Size:     v.GetCapacityBytes(),
		Access:   storage.AccessMode(vc[contextAccess]),
		Placement: storage.Placement{
			Replication: vc[contextReplication], DiskType: vc[contextDiskType], DataCenter: vc[contextDataCenter],
		},
		Mounts:  []string{},
		context: vc,
	}
}

// modes are the CSI access modes behind the words of the command line.
var modes = map[storage.AccessMode]csi.VolumeCapability_AccessMode_Mode{
	storage.Shared:       csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
	storage.Single:       csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	storage.ReadOnlyMode: csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// capability asks for a file system with the given access.
func capability(access storage.AccessMode) (*csi.VolumeCapability, error) {
	mode, ok := modes[access]
	if !ok {
		return nil, fmt.Errorf("access %q: shared, single and read-only are possible", access)
	}
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}, nil
}

// undoCreation bounds the removal of what a failed creation has left.
const undoCreation = 10 * time.Second

// Create makes a volume, or returns the one that has the name and is the same. A
// new one that cannot be finished is taken back: Kubernetes would repeat the call,
// a person may not.
func (c *Client) Create(ctx context.Context, name string, size int64, access storage.AccessMode, params map[string]string) (Volume, error) {
	vc, err := capability(access)
	if err != nil {
		return Volume{}, err
	}
	_, findErr := c.Find(ctx, name)
	_, missing := errors.AsType[*NotFoundError](findErr)
	if findErr != nil && !missing {
		return Volume{}, findErr
	}
	resp, err := c.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: size, LimitBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{vc},
		Parameters:         params,
	})
	if err != nil {
		err = c.explain(err)
		if missing {
			err = errors.Join(err, c.uncreate(context.WithoutCancel(ctx), name))
		}
		return Volume{}, err
	}
	v := fromCSI(resp.GetVolume())
	v.Name, v.Access = name, access
	return v, nil
}

// uncreate deletes the volume of that name if it is half-made. What cannot be
// deleted either stays: the same creation, repeated, finishes it.
func (c *Client) uncreate(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, undoCreation)
	defer cancel()
	v, err := c.Find(ctx, name)
	if err != nil || v.Phase != string(storage.Creating) {
		return nil // nothing was made, or nobody can tell
	}
	if err := c.Delete(ctx, v); err != nil {
		return fmt.Errorf("it is half-made; repeat the creation or delete it: %w", err)
	}
	return nil
}

// List returns all volumes by name, with where they are mounted here.
func (c *Client) List(ctx context.Context) ([]Volume, error) {
	records, err := ReadRecords(c.dir)
	if err != nil {
		return nil, err
	}
	volumes := []Volume{}
	for token := ""; ; {
		resp, err := c.controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: 500, StartingToken: token})
		if err != nil {
			return nil, c.explain(err)
		}
		for _, e := range resp.GetEntries() {
			v := fromCSI(e.GetVolume())
			v.Mounts = append(v.Mounts, records.targets(v.ID)...)
			volumes = append(volumes, v)
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	slices.SortFunc(volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return volumes, nil
}

// Find returns the volume with the given name, or with that id.
func (c *Client) Find(ctx context.Context, name string) (Volume, error) {
	all, err := c.List(ctx)
	if err != nil {
		return Volume{}, err
	}
	for _, v := range all {
		if v.Name == name {
			return v, nil
		}
	}
	for _, v := range all {
		if v.ID == name {
			return v, nil
		}
	}
	return Volume{}, &NotFoundError{name}
}

// NotFoundError means that there is no volume of that name.
type NotFoundError struct{ Name string }

// Error implements error.
func (e *NotFoundError) Error() string {
	return fmt.Sprintf("there is no volume %q (holdfast volume list shows those that are)", e.Name)
}

// Expand makes a volume larger, in its mounts here as well. It returns the new
// size.
func (c *Client) Expand(ctx context.Context, v Volume, size int64) (int64, error) {
	if size < v.Size {
		return 0, fmt.Errorf("volume %q has %d bytes and cannot shrink to %d: it can only grow", v.Name, v.Size, size)
	}
	vc, err := capability(v.Access)
	if err != nil {
		return 0, err
	}
	resp, err := c.controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: v.ID, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: vc,
	})
	if err != nil {
		return 0, c.explain(err)
	}
	if !resp.GetNodeExpansionRequired() {
		return resp.GetCapacityBytes(), nil
	}
	for _, target := range v.Mounts {
		_, err := c.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			VolumeId: v.ID, VolumePath: target, StagingTargetPath: c.staging(v.ID),
			CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: vc,
		})
		if err != nil {
			return 0, fmt.Errorf("expand the mount at %s: %w", target, c.explain(err))
		}
	}
	return resp.GetCapacityBytes(), nil
}

// Delete removes a volume, and its data as its OnDelete says.
func (c *Client) Delete(ctx context.Context, v Volume) error {
	if len(v.Mounts) > 0 {
		return fmt.Errorf("volume %q is in use: it is mounted at %s; unmount it first", v.Name, strings.Join(v.Mounts, ", "))
	}
	_, err := c.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.ID})
	return c.explain(err)
}

// explain says what to do where the driver itself could not be reached.
func (c *Client) explain(err error) error {
	if err == nil || status.Code(err) != codes.Unavailable {
		return err
	}
	if !c.dir.Locked(state.Supervisor) {
		return fmt.Errorf("nothing runs with state %s; start it with: holdfast up", c.dir)
	}
	// Without room SeaweedFS finds no place to write to, and is silent.
	disk := doctor.Space(c.dir)
	if !disk.OK && disk.Needed {
		return fmt.Errorf("no space left: %s; %s (%w)", disk.Detail, disk.Mend, err)
	}
	return fmt.Errorf("the cluster does not answer: %w (holdfast status shows what runs)", err)
}
