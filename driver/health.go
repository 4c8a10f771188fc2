package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file says how a volume is on this node. ARCHITECTURE.md has the table of
// states. What is slow is said and is no reason to touch a mount: it may be serving
// an application that waits.

// slowAfter is what an answer of the cluster may take before it is called slow.
const slowAfter = time.Second

// Health is what a Mounter knows of a volume that it has mounted.
type Health struct {
	// Dead: the session has ended in the kernel. Serving: a mounter has it.
	Dead, Serving bool
	// Silent says why that mounter does not answer, Away why the cluster does not.
	Silent, Away string
	// Gone: the bucket is not there.
	Gone bool
	// Waiting requests have no answer yet; -1 when not known.
	Waiting int
	// Took is how long the cluster needed to answer.
	Took time.Duration
	// Leftovers are the files that are kept aside on the node.
	Leftovers int
	// Behind is by how much the cluster is behind what a volume of durability node
	// should have brought to it, Why the reason where there is one.
	Behind time.Duration
	Why    string
}

// condition is one thing that is not as it should be.
type condition = csi.VolumeHealth_VolumeHealthEntry

func inaccessible(reason, format string, args ...any) *condition {
	return &condition{Status: csi.VolumeHealthErrorType_INACCESSIBLE, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func degraded(reason, format string, args ...any) *condition {
	return &condition{Status: csi.VolumeHealthErrorType_DEGRADED, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func lost(reason, format string, args ...any) *condition {
	return &condition{Status: csi.VolumeHealthErrorType_DATA_LOSS, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// NodeGetVolumeHealth implements csi.NodeServer. It answers whatever the mount
// does, for it does not touch it.
func (n *Node) NodeGetVolumeHealth(ctx context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	id, err := checkVolumeID(knownID(req.GetVolumeId()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.o.StatTimeout)
	defer cancel()
	all, err := n.mounts(ctx)
	if err != nil {
		return nil, err
	}
	health := &csi.VolumeHealth{VolumeId: string(id)}
	have := all.of(string(id))
	if have == nil {
		if _, err := n.records.GetRecord(ctx, id); err != nil {
			return nil, err
		}
		health.HealthStatuses = []*condition{inaccessible("NotMounted", "volume %s is not mounted on this node", id)}
		return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
	}
	for _, path := range []string{req.GetStagingTargetPath(), req.GetVolumePublishPath()} {
		if path == "" {
			continue
		}
		mounted, _, err := n.table.Mounted(path)
		if err != nil {
			return nil, err
		}
		if !mounted || !samePath(have.Target, path) && !have.boundAt(path) {
			health.HealthStatuses = append(health.HealthStatuses, inaccessible("NotMounted", "volume %s is not mounted at %s", id, path))
			break // one message for each reason
		}
	}
	found, err := n.conditions(ctx, have)
	if err != nil {
		return nil, err
	}
	health.HealthStatuses = append(health.HealthStatuses, found...)
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// conditions says what is not as it should be with a volume that is mounted here.
func (n *Node) conditions(ctx context.Context, have *Mounted) ([]*condition, error) {
	h, err := n.mounter.Health(ctx, have.ID)
	if err != nil {
		return nil, err
	}
	found := conditions(have, h)
	if h.Dead || !h.Serving || h.Silent != "" || h.Away != "" {
		return found, nil // the record cannot be asked, or need not
	}
	bounded, cancel := context.WithTimeout(ctx, slowAfter)
	defer cancel()
	r, err := n.records.GetRecord(bounded, storage.VolumeID(have.ID))
	if err != nil {
		return found, nil // what is not known is not told
	}
	if _, ours := r.Leases[n.o.NodeID]; !ours && r.Access == storage.Single {
		found = append(found, inaccessible("Lost", "node %s fell silent, and has lost the volume: it changes nothing there any more, and keeps aside what it had not committed; its pods must end, and the volume be unstaged there", n.o.NodeID))
	}
	return found, nil
}

// conditions says what is not as it should be with a mount.
func conditions(m *Mounted, h Health) []*condition {
	waiting := ""
	if h.Waiting > 0 {
		waiting = fmt.Sprintf("; %d requests wait", h.Waiting)
	}
	switch {
	case h.Dead:
		return []*condition{inaccessible("SessionEnded", "the mount at %s has ended for good (ENOTCONN): staging the volume again mounts it anew", m.Target)}
	case !h.Serving:
		return []*condition{inaccessible("NoMounter", "nobody serves the mount at %s now: applications wait for the next mounter%s", m.Target, waiting)}
	case h.Silent != "":
		return []*condition{inaccessible("MounterSilent", "the mounter does not answer: %s%s", h.Silent, waiting)}
	}
	var all []*condition
	switch {
	case h.Gone:
		all = append(all, lost("BucketGone", "the bucket of the volume, or its folder there, is not there any more"))
	case h.Away != "":
		all = append(all, inaccessible("ClusterAway", "the cluster is out of reach: %s%s", h.Away, waiting))
	case h.Took > slowAfter:
		all = append(all, degraded("Slow", "the cluster is slow: it took %s to answer%s", h.Took.Round(time.Millisecond), waiting))
	}
	if h.Behind > 0 {
		why := ""
		if h.Why != "" {
			why = ": " + h.Why
		}
		all = append(all, degraded("NotCommitted", "what was written %s ago is on this node's disk and not in the cluster%s", h.Behind.Round(time.Millisecond), why))
	}
	if h.Leftovers > 0 {
		all = append(all, degraded("Leftovers", "%d files could not be committed and are kept on this node, in the mounter's state folder: look at them and remove them by hand", h.Leftovers))
	}
	return all
}

// NodeGetStorageHealth implements csi.NodeServer.
func (n *Node) NodeGetStorageHealth(ctx context.Context, _ *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, n.o.StatTimeout)
	defer cancel()
	begun := time.Now()
	_, err := n.records.ListRecords(bounded, "", 1)
	took := time.Since(begun)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	resp := &csi.NodeGetStorageHealthResponse{}
	add := func(s csi.StorageHealthErrorType, reason, message string) {
		resp.BackendHealth = append(resp.BackendHealth, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{Status: s, Reason: reason, Message: message})
	}
	switch {
	case storage.IsContext(err), storage.Is(err, storage.Unavailable):
		add(csi.StorageHealthErrorType_STORAGE_UNREACHABLE, "ClusterAway", fmt.Sprintf("the cluster did not answer within %s: %v", n.o.StatTimeout, err))
	case err != nil:
		return nil, err
	case took > slowAfter:
		add(csi.StorageHealthErrorType_STORAGE_DEGRADED, "Slow", fmt.Sprintf("the cluster is slow: it took %s to answer", took.Round(time.Millisecond)))
	}
	return resp, nil
}
