package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// NodePublishVolume implements csi.NodeServer. It needs nothing but the mounter:
// a pod can start on a staged volume while the store is away.
func (n *Node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := needID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := needPath("target path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := checkCapability(req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	if req.GetVolumeContext()[inlineKey] == "true" {
		v, err := n.inlineWanted(req)
		if err != nil {
			return nil, err
		}
		if err := n.pending.do(ctx, v.record.ID, "NodePublishVolume", func() error { return n.publishInline(ctx, v) }); err != nil {
			return nil, err
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if req.GetStagingTargetPath() == "" {
		return nil, storage.Errorf(storage.InUse, "the staging path is missing: the volume has to be staged first")
	}
	id, err := checkVolumeID(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	err = n.pending.doAt(ctx, id, "NodePublishVolume", req.GetTargetPath(), func() error { return n.publish(ctx, id, req) })
	if err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *Node) publish(ctx context.Context, id storage.VolumeID, req *csi.NodePublishVolumeRequest) error {
	target, m := req.GetTargetPath(), req.GetVolumeCapability().GetAccessMode().GetMode()
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	group, err := groupOf(req.GetVolumeCapability())
	if err != nil {
		return err
	}
	have := all.of(string(id))
	if have == nil || group != nil && !sameGroup(group, have.Group) {
		if have, err = n.stageAgain(ctx, id, req, have, group); err != nil {
			return err
		}
	}
	if !samePath(have.Target, req.GetStagingTargetPath()) {
		return storage.Errorf(storage.InUse, "volume %s is staged at %s, not at %s", id, have.Target, req.GetStagingTargetPath())
	}
	if err := n.sameContext(have, contextOf(req.GetVolumeCapability())); err != nil {
		return err
	}
	if samePath(have.Target, target) {
		return storage.Errorf(storage.Invalid, "the target path %s is the staging path", target)
	}
	want := bindOptions(req.GetVolumeCapability())
	want.ReadOnly = want.ReadOnly || have.ReadOnly || req.GetReadonly() || readOnly(m)
	mounted, has, err := n.table.Mounted(target)
	if err != nil {
		return err
	}
	switch {
	case mounted && !have.boundAt(target):
		return storage.Errorf(storage.Exists, "something else is mounted at %s", target)
	case mounted && has != want:
		return storage.Errorf(storage.Exists, "volume %s is published at %s with read-only %v and noexec %v, not %v and %v", id, target, has.ReadOnly, has.NoExec, want.ReadOnly, want.NoExec)
	case mounted:
		return nil
	case m == singleWriter && publishedElsewhere(have, target):
		return storage.Errorf(storage.InUse, "volume %s is for one pod at a time and is published at %s", id, strings.Join(have.Binds, ", "))
	}
	made, err := n.makeDir("target path", target)
	if err != nil {
		return err
	}
	err = n.mounter.Bind(ctx, string(id), target, want)
	if err == nil && want.NoExec {
		err = n.holds(ctx, target, want)
	}
	if err != nil {
		err = fmt.Errorf("publish volume %s: %w", id, err)
		if made {
			err = errors.Join(err, n.removeDir(target))
		}
		return err
	}
	n.log.InfoContext(ctx, "volume published", slog.String("volume", string(id)), slog.String("path", target))
	return nil
}

// stageAgain is for a volume that was staged, and is not as this pod needs it: have is for
// another group, and no pod has it any more; or it is gone, since this was begun before
// and cut short. The kubelet that finds a new pod before it has looked after the last one
// repeats the publication, and would never stage by itself.
func (n *Node) stageAgain(ctx context.Context, id storage.VolumeID, req *csi.NodePublishVolumeRequest, have *Mounted, group *uint32) (*Mounted, error) {
	staging := req.GetStagingTargetPath()
	switch {
	case have == nil:
		r, err := n.records.GetRecord(ctx, id)
		if err != nil {
			return nil, err
		}
		if lease, ours := r.Leases[n.o.NodeID]; !ours || !samePath(lease.Path, staging) {
			return nil, storage.Errorf(storage.InUse, "volume %s is not staged on this node", id)
		}
	case !samePath(have.Target, staging): // told by the caller
		return have, nil
	case len(have.Binds) > 0:
		return nil, storage.Errorf(storage.InUse, "volume %s is staged on this node with volume_mount_group %s, and a node has one group for a volume: %d is possible once the pods of the other are gone", id, groupName(have.Group), *group)
	default:
		if err := n.takeAway(ctx, id, staging); err != nil {
			return nil, err
		}
	}
	err := n.stage(ctx, id, &csi.NodeStageVolumeRequest{
		VolumeId: req.GetVolumeId(), StagingTargetPath: staging,
		VolumeCapability: req.GetVolumeCapability(), VolumeContext: req.GetVolumeContext(),
	}, group)
	if err != nil {
		return nil, err
	}
	all, err := n.mounts(ctx)
	if err != nil {
		return nil, err
	}
	if have = all.of(string(id)); have == nil {
		return nil, storage.Errorf(storage.Unavailable, "volume %s was staged and is not mounted", id)
	}
	return have, nil
}

// holds makes sure that what was just bound has the options that were asked for: a
// keeper that is older than an option does not know it. Otherwise it is taken away.
func (n *Node) holds(ctx context.Context, target string, want BindOptions) error {
	_, has, err := n.table.Mounted(target)
	if err == nil && has == want {
		return nil
	}
	if err == nil {
		err = storage.Errorf(storage.Unsupported, "mount flag noexec has no effect at %s: the keeper on this node is of an older version", target)
	}
	return errors.Join(err, n.unmount(ctx, target))
}

func publishedElsewhere(m *Mounted, target string) bool {
	for _, b := range m.Binds {
		if !samePath(b, target) {
			return true
		}
	}
	return false
}

// NodeUnpublishVolume implements csi.NodeServer. It goes by what is mounted, not
// by the record.
func (n *Node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := needID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := needPath("target path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	id, target, unpublish := storage.VolumeID(req.GetVolumeId()), req.GetTargetPath(), n.unpublish
	inline, err := n.isInline(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if inline {
		id, unpublish = VolumeID(req.GetVolumeId()), n.unpublishInline
	}
	if err := n.pending.doAt(ctx, id, "NodeUnpublishVolume", target, func() error { return unpublish(ctx, id, target) }); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n *Node) unpublish(ctx context.Context, id storage.VolumeID, target string) error {
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	if other := all.at(target); other != nil {
		if other.ID != string(id) {
			return storage.Errorf(storage.InUse, "the target path %s belongs to volume %s", target, other.ID)
		}
		if samePath(other.Target, target) {
			return storage.Errorf(storage.Invalid, "the target path %s is the staging path of volume %s", target, id)
		}
	}
	if err := n.unmount(ctx, target); err != nil {
		return err
	}
	if err := n.removeDir(target); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "volume unpublished", slog.String("volume", string(id)), slog.String("path", target))
	return nil
}
