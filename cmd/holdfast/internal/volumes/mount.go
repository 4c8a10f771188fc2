package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/storage"
)

// undoTimeout bounds what is taken back after a failure, when the caller may
// have left already.
const undoTimeout = 30 * time.Second

// staging is where a volume is staged, once for all its mounts.
func (c *Client) staging(volumeID string) string {
	return filepath.Join(c.dir.Staging(), volumeID)
}

// MountedAt returns where Mount has mounted a volume and it still is.
func (c *Client) MountedAt(v Volume) ([]string, error) {
	records, err := ReadRecords(c.dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, path := range records.targets(v.ID) {
		there, err := mounted(path)
		if err != nil {
			return nil, err
		}
		if there != nil {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Mount mounts a volume at dir and records it. It reports whether it had been
// there already.
func (c *Client) Mount(ctx context.Context, v Volume, dir string) (already bool, err error) {
	path, err := target(dir)
	if err != nil {
		return false, err
	}
	records, err := ReadRecords(c.dir)
	if err != nil {
		return false, err
	}
	there, err := mounted(path)
	if err != nil {
		return false, err
	}
	old, recorded := records.At(path)
	switch {
	case there != nil && recorded && old.VolumeID == v.ID:
		return true, c.attach(ctx, old) // which revives a mount that is dead
	case there != nil && recorded:
		return false, fmt.Errorf("volume %q is mounted at %s already", old.Name, path)
	case there != nil:
		return false, fmt.Errorf("%s is a mount point already (of %s, type %s)", path, there.Source, there.FSType)
	}
	was, err := prepareTarget(path, os.Getuid())
	if err != nil {
		return false, err
	}
	if recorded {
		was.Made = was.Made || old.Folder.Made
	}
	r := Record{VolumeID: v.ID, Name: v.Name, Access: v.Access, Target: path, Folder: was, Context: v.context}
	// The record comes first: if we die in between, the next `up` mounts it,
	// which is what was asked for.
	if err := r.save(c.dir); err != nil {
		return false, err
	}
	err = c.attach(ctx, r)
	if err == nil {
		return false, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return false, errors.Join(err, c.detach(undo, r), r.forget(c.dir), r.Folder.restore(path))
}

// attach stages and publishes. Both are idempotent.
func (c *Client) attach(ctx context.Context, r Record) error {
	vc, err := capability(r.Access)
	if err != nil {
		return err
	}
	staging := c.staging(r.VolumeID)
	if err := os.MkdirAll(staging, 0o755); err != nil {
		return err
	}
	if _, err := c.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: r.VolumeID, StagingTargetPath: staging, VolumeCapability: vc, VolumeContext: r.Context,
	}); err != nil {
		return c.explain(err)
	}
	_, err = c.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: r.VolumeID, StagingTargetPath: staging, TargetPath: r.Target, VolumeCapability: vc,
		VolumeContext: r.Context, Readonly: r.Access == storage.ReadOnlyMode,
	})
	return c.explain(err)
}

// detach unpublishes, and unstages when no other mount of the volume is left.
func (c *Client) detach(ctx context.Context, r Record) error {
	if _, err := c.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId: r.VolumeID, TargetPath: r.Target,
	}); err != nil {
		// It may have been unmounted and only the folder be left, where a driver
		// without rights over other people's folders cannot remove it.
		if there, tableErr := mounted(r.Target); there != nil || tableErr != nil || status.Code(err) == codes.Unavailable {
			return c.busy(err, r)
		}
	}
	records, err := ReadRecords(c.dir)
	if err != nil {
		return err
	}
	for _, other := range records.targets(r.VolumeID) {
		there, err := mounted(other)
		if err != nil {
			return err
		}
		if there != nil {
			return nil
		}
	}
	if _, err := c.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId: r.VolumeID, StagingTargetPath: c.staging(r.VolumeID),
	}); err != nil {
		return c.explain(err)
	}
	return remove(c.staging(r.VolumeID))
}

// busy adds who is in the way to the refusal of an unmount.
func (c *Client) busy(err error, r Record) error {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.Internal:
	default:
		return c.explain(err)
	}
	holders := process.Holders(r.Target)
	if len(holders) == 0 {
		return fmt.Errorf("volume %q stays mounted at %s: %w", r.Name, r.Target, err)
	}
	who := make([]string, 0, len(holders))
	for _, h := range holders[:min(3, len(holders))] {
		who = append(who, h.String())
	}
	return fmt.Errorf("volume %q stays mounted at %s, which is busy: %s", r.Name, r.Target, strings.Join(who, ", "))
}

// Unmount unmounts what is mounted at dir and forgets it.
func (c *Client) Unmount(ctx context.Context, dir string) (Record, error) {
	path, err := target(dir)
	if err != nil {
		return Record{}, err
	}
	records, err := ReadRecords(c.dir)
	if err != nil {
		return Record{}, err
	}
	r, ok := records.At(path)
	if !ok {
		return Record{}, fmt.Errorf("no volume is mounted at %s", path)
	}
	if err := c.detach(ctx, r); err != nil {
		return r, err
	}
	if err := r.Folder.restore(path); err != nil {
		return r, err
	}
	return r, r.forget(c.dir)
}
