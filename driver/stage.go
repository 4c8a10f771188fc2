package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// NodeStageVolume implements csi.NodeServer. The lease is written before the
// mount: a volume must never be mounted without one. When the mount fails the
// lease ends by itself; giving it back at once could let another node in while
// the mount is still coming up.
func (n *Node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := needID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := needPath("staging path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := checkCapability(req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	id, err := checkHandle(req.GetVolumeId(), req.GetVolumeContext())
	if err != nil {
		return nil, err
	}
	group, err := groupOf(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	err = n.pending.do(ctx, id, "NodeStageVolume", func() error {
		return n.unhurried(ctx, id, func(ctx context.Context) error {
			return n.stage(ctx, id, req, group)
		})
	})
	if err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// means says whether the volume is the one that a PersistentVolume's attributes speak of.
// They are not needed, and where somebody has written them by hand they must not be
// passed over: another bucket than the one that is named would be mounted.
func means(attributes map[string]string, id storage.VolumeID, r *storage.Record) error {
	for name, is := range map[string]string{contextBucket: string(r.Bucket), bucketAttribute: string(r.Bucket), contextPrefix: string(r.Prefix)} {
		if said, given := attributes[name]; given && said != is {
			return storage.Errorf(storage.Invalid, "attribute %s=%.64q: volume %s has %q: leave it out", name, said, id, is)
		}
	}
	return nil
}

func (n *Node) stage(ctx context.Context, id storage.VolumeID, req *csi.NodeStageVolumeRequest, group *uint32) error {
	target, c := req.GetStagingTargetPath(), req.GetVolumeCapability()
	m := c.GetAccessMode().GetMode()
	r, err := n.static(ctx, id, req)
	if err != nil {
		return err
	}
	if err := means(req.GetVolumeContext(), id, &r); err != nil {
		return err
	}
	if err := checkReady(&r); err != nil {
		return err
	}
	if r, err = n.await(ctx, r); err != nil {
		return err
	}
	if err := n.evict(&r); err != nil { // before a folder is made
		return err
	}
	if err := servesRecord(&r, m); err != nil {
		return err
	}
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	ro := r.Access == storage.ReadOnlyMode || readOnly(m)
	have := all.of(string(id))
	switch other := all.at(target); {
	case have != nil && !samePath(have.Target, target):
		return storage.Errorf(storage.InUse, "volume %s is staged at %s already", id, have.Target)
	case have != nil && have.ReadOnly != ro:
		return storage.Errorf(storage.Exists, "volume %s is staged at %s with read-only %v, not %v", id, target, have.ReadOnly, ro)
	case have != nil && group != nil && !sameGroup(group, have.Group):
		return storage.Errorf(storage.Exists, "volume %s is staged at %s with volume_mount_group %s, not %d", id, target, groupName(have.Group), *group)
	case have == nil && other != nil:
		return storage.Errorf(storage.InUse, "volume %s is mounted at %s", other.ID, target)
	case have == nil:
		if err := n.makeFree("staging path", target); err != nil {
			return err
		}
	}
	if r, err = n.takeLease(ctx, id, target, have != nil, group); err != nil {
		return err
	}
	if have != nil && have.Healthy {
		return n.sameContext(have, contextOf(c))
	}
	if group == nil && have != nil { // a session that has ended is made anew as it was
		group = have.Group
	}
	if err := n.mount(ctx, &r, target, MountOptions{ReadOnly: ro, Context: contextOf(c)}, group, have == nil); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "volume staged", slog.String("volume", string(id)), slog.String("path", target))
	return nil
}

// mount has the keeper mount a volume that this node has leased; fresh says that nothing
// of it is there yet.
func (n *Node) mount(ctx context.Context, r *storage.Record, target string, o MountOptions, group *uint32, fresh bool) error {
	said, err := n.mountConfig(r, o.ReadOnly, group)
	if err != nil {
		return err
	}
	config, err := json.Marshal(said)
	if err != nil {
		return fmt.Errorf("mount config of %s: %w", r.ID, err)
	}
	if err := n.mounter.Mount(ctx, string(r.ID), target, o, config); err != nil {
		return fmt.Errorf("mount volume %s: %w", r.ID, err)
	}
	err = n.sameContext(&Mounted{ID: string(r.ID), Target: target}, o.Context)
	if err != nil && fresh { // a keeper that is older than the option does not know it
		err = errors.Join(err, n.unmount(ctx, target))
	}
	return err
}

// sameContext says whether a mount is shown with the SELinux context that is asked for;
// none asks for nothing. The kernel knows, and keeps it for as long as the mount is.
func (n *Node) sameContext(m *Mounted, want string) error {
	if want == "" {
		return nil
	}
	has, err := n.table.Context(m.Target)
	if err != nil || has == want {
		return err
	}
	if has == "" {
		has = "none"
	}
	return storage.Errorf(storage.InUse, "volume %s is mounted at %s with SELinux context %s, not %s, and a node has one for a volume: it is possible once the pods of the other are gone; if there are none, the keeper on this node is of an older version", m.ID, m.Target, has, want)
}

// unhurried stages a volume again that is alive here, while its cluster may be slow:
// the caller hears soon that it is left as it is. Only a session that has ended is
// worth a wait, since staging mounts it anew.
func (n *Node) unhurried(ctx context.Context, id storage.VolumeID, stage func(context.Context) error) error {
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	have := all.of(string(id))
	if have == nil || have.Dead {
		return stage(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, n.o.StatTimeout)
	defer cancel()
	err = stage(bounded)
	if bounded.Err() != nil && ctx.Err() == nil && err != nil {
		return storage.Errorf(storage.Busy, "volume %s is staged at %s, and the cluster has not answered within %s: it is left as it is; try again", id, have.Target, n.o.StatTimeout)
	}
	return err
}

// makeFree makes the folder, unless something that the mounter does not know
// is mounted there: a mount from before a keeper that lost its memory.
func (n *Node) makeFree(what, target string) error {
	mounted, _, err := n.table.Mounted(target)
	if err != nil {
		return err
	}
	if mounted {
		return storage.Errorf(storage.InUse, "the %s %s is a mount point of something else; unmount it first", what, target)
	}
	_, err = n.makeDir(what, target)
	return err
}

// NodeUnstageVolume implements csi.NodeServer. It goes by what is mounted: a
// volume whose record is gone can be unstaged too.
func (n *Node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := needID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := needPath("staging path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	id := storage.VolumeID(req.GetVolumeId())
	err := n.pending.do(ctx, id, "NodeUnstageVolume", func() error {
		return n.unstage(ctx, id, req.GetStagingTargetPath())
	})
	if err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n *Node) unstage(ctx context.Context, id storage.VolumeID, target string) error {
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	have := all.of(string(id))
	switch other := all.at(target); {
	case other != nil && other.ID != string(id):
		return storage.Errorf(storage.InUse, "the staging path %s belongs to volume %s", target, other.ID)
	case have != nil && !samePath(have.Target, target):
		// Staged elsewhere: at target there is nothing to undo.
		return nil
	case have != nil && len(have.Binds) > 0:
		return storage.Errorf(storage.InUse, "volume %s is still published at %s; the mount is busy", id, strings.Join(have.Binds, ", "))
	}
	if err := n.announced(ctx, id, func() error { return n.takeAway(ctx, id, target) }); err != nil {
		return err
	}
	if err := n.giveLeaseBack(ctx, id); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "volume unstaged", slog.String("volume", string(id)), slog.String("path", target))
	return nil
}

// takeAway unmounts a volume and returns when nothing of it is left on this node: a mount
// that ended otherwise than by this unmount may have left something, and the next node
// would not see it.
func (n *Node) takeAway(ctx context.Context, id storage.VolumeID, target string) error {
	if err := n.unmount(ctx, target); err != nil {
		return err
	}
	if err := n.mounter.Settle(ctx, string(id)); err != nil {
		return fmt.Errorf("volume %s: bring to the cluster what is left on this node: %w", id, err)
	}
	return nil
}

func (n *Node) unmount(ctx context.Context, target string) error {
	err := n.mounter.Unmount(ctx, target)
	if storage.Is(err, storage.InUse) || storage.Is(err, storage.Busy) {
		return storage.Errorf(storage.InUse, "unmount %s: the mount is busy: %w", target, err)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}
