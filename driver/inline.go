package driver

import (
	"context"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the node's side of inline volumes: those that stand in a pod's own
// specification, and live as long as the pod. NodePublishVolume is all that is called for
// them. Any pod's author writes their attributes, so there is a list of what is allowed:
// nothing by which one could reach a bucket that is there, or keep one.
//
// Who makes the bucket: a node has no administrator's keys. It writes the volume's record
// and waits until a controller, which looks for such records each second, has made what
// belongs to it (inlinemake.go), with the very code of CreateVolume. Giving up is the
// other way around: the node marks the record, and a controller deletes. So a node never
// deletes data, and whatever dies between two steps, the record says what is to be done.
//
// Two designs lost. A service of the controller's for nodes: one more port, certificate
// and network policy, for two parties that both have the filer already; and a request
// whose maker died is forgotten, a record is not. Buckets made and deleted by the node
// itself, in the filer: it would need its own copy of what the gateway does, and the right
// to do it to all.
//
// A node that is lost cannot give up: storage.PodGone notes that the API has no such pod,
// and the volume is deleted once nobody's lease lives. The price: while no controller
// runs, no pod with a new inline volume starts.

// Keys by which the kubelet tells what a volume is of; CSIDriver needs podInfoOnMount.
const (
	inlineKey    = ignoredPrefix + "ephemeral"
	podUID       = ignoredPrefix + "pod.uid"
	podNamespace = ignoredPrefix + "pod.namespace"
	podName      = ignoredPrefix + "pod.name"
)

// The attributes that are no parameters.
const (
	sizeAttribute    = "size"
	optionsAttribute = "mountOptions"
)

// inlineParameters are the parameters that an inline volume may have.
var inlineParameters = []string{"cacheSize", "uid", "gid", "fileMode", "dirMode", "durability", "commitDelay"}

const (
	// inlineWait is how long a call waits for a controller. The kubelet repeats it.
	inlineWait = 30 * time.Second
	// inlineLook is the pause between two looks.
	inlineLook = 200 * time.Millisecond
)

// kubeletID is how the kubelet names an inline volume, by pod and volume.
var kubeletID = regexp.MustCompile(`^csi-[0-9a-f]{64}$`)

// knownID is the id by which we know a volume that a call names: inline ones have longer
// ids than a bucket's name may be.
func knownID(id string) string {
	if kubeletID.MatchString(id) {
		return string(VolumeID(id))
	}
	return id
}

// inlineVolume is what a pod asks for.
type inlineVolume struct {
	record storage.Record
	target string
	o      MountOptions
	group  *uint32
}

// inlineWanted judges what a pod's author has written.
func (n *Node) inlineWanted(req *csi.NodePublishVolumeRequest) (v inlineVolume, err error) {
	given, params, bytes := req.GetVolumeContext(), map[string]string{}, int64(defaultSize)
	options := flagsOf(req.GetVolumeCapability().GetMount())
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch {
		case strings.HasPrefix(name, ignoredPrefix):
		case name == sizeAttribute:
			n, err := attributeSize(value)
			if err != nil {
				return v, err
			}
			bytes = n
		case name == optionsAttribute:
			options = append(options, strings.Split(value, ",")...)
		case slices.Contains(inlineParameters, name):
			params[name] = value
		default:
			return v, storage.Errorf(storage.Invalid, "attribute %.64q is not for inline volumes, which any pod's author may write: %s, %s and %s are allowed; use a claim for the rest", name, sizeAttribute, optionsAttribute, strings.Join(inlineParameters, ", "))
		}
	}
	if len(req.GetSecrets()) > 0 {
		return v, storage.Errorf(storage.Invalid, "nodePublishSecretRef has no meaning: an inline volume has a bucket of its own; leave it out")
	}
	s, err := parseParams(params)
	if err != nil {
		return v, err
	}
	if err := checkMount(&csi.VolumeCapability_MountVolume{FsType: req.GetVolumeCapability().GetMount().GetFsType(), MountFlags: options}); err != nil {
		return v, err
	}
	if slices.Contains(options, "noexec") {
		return v, storage.Errorf(storage.Invalid, "mount flag noexec is not possible for inline volumes: use a claim")
	}
	m := req.GetVolumeCapability().GetAccessMode().GetMode()
	if modeAccess[m] != storage.Single {
		return v, storage.Errorf(storage.Invalid, "access mode %s is not possible for inline volumes, which one pod has: use a claim", m)
	}
	pod := storage.Pod{UID: given[podUID], Namespace: given[podNamespace], Name: given[podName]}
	if pod.UID == "" {
		return v, storage.Errorf(storage.Invalid, "an inline volume needs to know its pod (%s): CSIDriver needs podInfoOnMount: true", podUID)
	}
	v.group, err = groupOf(req.GetVolumeCapability())
	if err != nil {
		return v, err
	}
	id := VolumeID(req.GetVolumeId())
	v.target = req.GetTargetPath()
	v.o = MountOptions{ReadOnly: req.GetReadonly() || slices.Contains(options, "ro"), Context: contextOf(req.GetVolumeCapability())}
	v.record = storage.Record{
		ID: id, Name: req.GetVolumeId(), Bucket: bucketOf(id), Capacity: bytes, Access: storage.Single, OnDelete: storage.DeleteData,
		Parameters: s.kept, Phase: storage.Creating, Inline: &storage.Inline{Node: n.o.NodeID, Pod: pod},
	}
	return v, nil
}

// attributeSize is the attribute size in bytes.
func attributeSize(value string) (int64, error) {
	n, err := size.Parse(value)
	if err != nil || n < 1 {
		return 0, storage.Errorf(storage.Invalid, "attribute %s=%q: a size such as 512Mi or 10Gi is allowed", sizeAttribute, value)
	}
	return int64(n), nil
}

// publishInline mounts an inline volume at the pod's folder itself: one pod has it, once.
func (n *Node) publishInline(ctx context.Context, v inlineVolume) error {
	id := v.record.ID
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	have := all.of(string(id))
	switch other := all.at(v.target); {
	case have != nil && (!have.Inline || !samePath(have.Target, v.target)):
		return storage.Errorf(storage.Exists, "volume %s is mounted at %s, not at %s", id, have.Target, v.target)
	case have != nil && have.ReadOnly != v.o.ReadOnly:
		return storage.Errorf(storage.Exists, "volume %s is published at %s with read-only %v, not %v", id, v.target, have.ReadOnly, v.o.ReadOnly)
	case have != nil && !have.Dead: // served, or about to be: the mounter sees to it
		return n.sameContext(have, v.o.Context)
	case have == nil && other != nil:
		return storage.Errorf(storage.InUse, "volume %s is mounted at %s", other.ID, v.target)
	}
	if _, err = n.inlineReady(ctx, v.record); err != nil {
		return err
	}
	if have == nil {
		if err := n.makeFree("target path", v.target); err != nil {
			return err
		}
	}
	r, err := n.takeLease(ctx, id, v.target, have != nil, nil)
	if err != nil {
		return err
	}
	if err := n.mount(ctx, &r, v.target, v.o, v.group, have == nil); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "inline volume published", slog.String("volume", string(id)), slog.String("path", v.target),
		slog.String("pod", r.Inline.Pod.Namespace+"/"+r.Inline.Pod.Name))
	return nil
}

// inlineReady writes the volume's record, unless that is there, and waits until a
// controller has made what belongs to it.
func (n *Node) inlineReady(ctx context.Context, want storage.Record) (storage.Record, error) {
	bounded, cancel := context.WithTimeout(ctx, n.o.InlineWait)
	defer cancel()
	for {
		r, err := n.records.GetRecord(bounded, want.ID)
		if storage.Is(err, storage.NotFound) {
			if err := n.inlineFits(&want); err != nil {
				return storage.Record{}, err
			}
			want.Created = n.o.Now().UTC()
			r, err = n.records.CreateRecord(bounded, want)
		}
		switch {
		case storage.Is(err, storage.Exists): // made meanwhile, by a call whose caller has left
		case err != nil && bounded.Err() == nil:
			return storage.Record{}, err
		case err == nil:
			if err := sameInline(&r, &want); err != nil || r.Phase == storage.Ready {
				return r, err
			}
		}
		select {
		case <-time.After(inlineLook):
		case <-bounded.Done():
			if ctx.Err() != nil {
				return storage.Record{}, ctx.Err()
			}
			return storage.Record{}, storage.Errorf(storage.Unavailable, "inline volume %s: no controller has made its bucket within %s: does one run? It is tried again", want.ID, n.o.InlineWait)
		}
	}
}

// inlineFits refuses a size above the administrator's bound. It is asked before a volume is
// made, and no more: the kubelet publishes what a pod has again and again, and a bound that
// was lowered meanwhile is not that pod's fault.
func (n *Node) inlineFits(want *storage.Record) error {
	if most := n.o.InlineMaxSize; most > 0 && want.Capacity > int64(most) {
		return storage.Errorf(storage.OutOfRange, "attribute %s: an inline volume of %s is larger than the %s that this cluster's administrator allows (%d and %d bytes): make it smaller, or use a claim",
			sizeAttribute, size.Bytes(want.Capacity), most, want.Capacity, int64(most))
	}
	return nil
}

// sameInline says whether the record is that of the volume which is asked for.
func sameInline(r, want *storage.Record) error {
	switch {
	case r.Inline == nil || r.Inline.Pod.UID != want.Inline.Pod.UID || r.Name != want.Name:
		return storage.Errorf(storage.Exists, "volume id %s belongs to another volume", want.ID)
	case r.Inline.Node != want.Inline.Node:
		return storage.Errorf(storage.InUse, "inline volume %s is of pod %s on node %s", r.ID, r.Inline.Pod.Name, r.Inline.Node)
	case r.Phase == storage.Deleting || !r.Inline.PodGone.IsZero():
		return storage.Errorf(storage.InUse, "inline volume %s is being deleted: its pod was said to be gone", r.ID)
	case r.Capacity != want.Capacity || !maps.Equal(r.Parameters, want.Parameters):
		return storage.Errorf(storage.Exists, "inline volume %s exists with other attributes", r.ID)
	}
	return nil
}

// isInline reports whether a volume that a call names is an inline one: by its mount, or
// where there is none any more, by its record.
func (n *Node) isInline(ctx context.Context, id string) (bool, error) {
	all, err := n.mounts(ctx)
	if err != nil {
		return false, err
	}
	if have := all.of(string(VolumeID(id))); have != nil {
		return have.Inline, nil
	}
	if !kubeletID.MatchString(id) {
		return false, nil
	}
	r, err := n.records.GetRecord(ctx, VolumeID(id))
	if storage.Is(err, storage.NotFound) {
		return false, nil
	}
	return r.Inline != nil, err
}

// unpublishInline takes the volume away and gives it up: a controller deletes it.
func (n *Node) unpublishInline(ctx context.Context, id storage.VolumeID, target string) error {
	all, err := n.mounts(ctx)
	if err != nil {
		return err
	}
	switch have, other := all.of(string(id)), all.at(target); {
	case other != nil && other.ID != string(id):
		return storage.Errorf(storage.InUse, "the target path %s belongs to volume %s", target, other.ID)
	case have != nil && !samePath(have.Target, target):
		return storage.Errorf(storage.InUse, "inline volume %s is mounted at %s, not at %s", id, have.Target, target)
	}
	if err := n.takeAway(ctx, id, target); err != nil {
		return err
	}
	// One step for both: between them somebody could stage it.
	_, err = updateRecord(ctx, n.records, id, func(r *storage.Record) error {
		r.Return(n.o.NodeID)
		if r.Inline != nil && r.Inline.Node == n.o.NodeID {
			r.Phase = storage.Deleting
		}
		return nil
	})
	if err != nil && !storage.Is(err, storage.NotFound) {
		return err
	}
	if err := n.removeDir(target); err != nil {
		return err
	}
	n.log.InfoContext(ctx, "inline volume given up", slog.String("volume", string(id)), slog.String("path", target))
	return nil
}
