package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// volumeConfig is what the node process tells the mounter of a volume, through
// the keeper, which does not look inside.
type volumeConfig struct {
	Volume   storage.VolumeID   `json:"volume"`
	Bucket   storage.BucketName `json:"bucket"`
	Prefix   storage.Path       `json:"prefix"`
	ReadOnly bool               `json:"readOnly"`
	Node     string             `json:"node"`
	Epoch    uint64             `json:"epoch"`
	// Objects is how the mount shows what was made over S3; nil is our own.
	Objects struct {
		UID      *uint32      `json:"uid"`
		GID      *uint32      `json:"gid"`
		FileMode *os.FileMode `json:"fileMode"`
		DirMode  *os.FileMode `json:"dirMode"`
	} `json:"objects"`
	// CacheSize bounds the volume in the cache, in bytes; nil does not.
	CacheSize *int64 `json:"cacheSize"`
	// Group is who shall have the volume; it takes the place of Objects.GID.
	Group *uint32 `json:"group"`
	// Groups are those that had it before.
	Groups []uint32 `json:"groups"`
	// Durability is what fsync means: of "node", that the data is on this node's disk,
	// and in the cluster within CommitDelay. Empty is cluster.
	Durability  string        `json:"durability"`
	CommitDelay time.Duration `json:"commitDelay"`
}

// openFileSystem stacks the coats of one volume: the cluster, the cache, which
// all volumes share, and the file system, which takes over what the mounter
// before has left in its folder below volumesDir. It is to be started with the
// session's notifier, and closed at the session's end.
func (o *serveOptions) openFileSystem(cluster *seaweed.Client, chunks *cache.Cache, uploads *fuse.Uploads, volumesDir string, log *slog.Logger, count *counted, g keeper.Grant) (fileSystem, error) {
	var c volumeConfig
	if err := json.Unmarshal(g.Config, &c); err != nil {
		return nil, storage.Errorf(storage.Invalid, "session %s: its configuration cannot be read: %w", g.ID, err)
	}
	if err := c.Bucket.Check(); err != nil {
		return nil, fmt.Errorf("session %s: %w", g.ID, err)
	}
	if err := c.Prefix.CheckFolder(); err != nil {
		return nil, fmt.Errorf("session %s: %w", g.ID, err)
	}
	if err := c.checkDurability(); err != nil {
		return nil, fmt.Errorf("session %s: %w", g.ID, err)
	}
	log = log.With("volume", c.Volume)
	var fence *fuse.Fence
	guarded := cluster
	if c.Epoch > 0 {
		fence = fuse.NewFence(cluster, fuse.FenceOptions{Volume: c.Volume, Node: c.Node, Epoch: c.Epoch, Logger: log})
		guarded = cluster.Under(fence)
	}
	vol := count.coat(guarded.Folder(c.Bucket, c.Prefix, c.Volume))
	if c.CacheSize == nil {
		vol.Chunks = chunks.Chunks(vol.Chunks)
	} else {
		vol.Chunks = chunks.Bounded(vol.Chunks, string(c.Volume), *c.CacheSize)
	}
	dir, err := volumeFolder(volumesDir, g.ID)
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", g.ID, err)
	}
	if c.CommitDelay > 0 && g.InitReply == nil { // else the mounter before did
		if err := flushNames(volumesDir, o.stateDir, filepath.Dir(o.stateDir)); err != nil {
			return nil, fmt.Errorf("session %s: %w", g.ID, err)
		}
	}
	h := &health{Watcher: vol.Watcher, files: vol.Files}
	vol.Watcher = h
	fs := fuse.New(vol, fuse.Options{
		ReadOnly: c.ReadOnly || g.ReadOnly,
		UID:      valueOr(c.Objects.UID, o.owner.UID),
		GID:      valueOr(c.Objects.GID, o.owner.GID),
		FileMode: valueOr(c.Objects.FileMode, 0),
		DirMode:  valueOr(c.Objects.DirMode, 0),
		Group:    c.Group,
		Groups:   c.Groups,
		Uploads:  uploads,
		Dir:      dir,
		Fresh:    g.InitReply == nil,
		Deadline: o.deadline,
		Node:     c.Node,
		Live:     leaseholders(cluster, c),
		Fence:    fence,
		Logger:   log,

		CommitDelay: c.CommitDelay,
	})
	if err := fs.Recover(); err != nil {
		return nil, fmt.Errorf("session %s: %w", g.ID, err)
	}
	noteConfig(dir, g, log)
	return retiring{healthy{fs, h}, dir}, nil
}

// volumeFolder makes the folder of a session. A link there would lead to files that
// are not its own, and some may have names that it writes to and removes.
func volumeFolder(volumesDir, id string) (string, error) {
	name := url.PathEscape(id)
	if name == "." || name == ".." {
		return "", storage.Errorf(storage.Invalid, "%q cannot be the name of a folder", id)
	}
	dir := filepath.Join(volumesDir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = storage.Errorf(storage.Exists, "%s is a link: the folder has to be the session's own", dir)
	}
	return dir, err
}

func valueOr[T any](p *T, other T) T {
	if p == nil {
		return other
	}
	return *p
}

// leaseholders gives the nodes that have a lease of the volume; nil for a volume
// that was mounted before mounters were told the node's name.
func leaseholders(cluster *seaweed.Client, c volumeConfig) func(context.Context) ([]string, error) {
	if c.Node == "" {
		return nil
	}
	var seen storage.Sightings
	return func(ctx context.Context) ([]string, error) {
		r, err := cluster.GetRecord(ctx, c.Volume)
		if err != nil {
			return nil, err
		}
		return seen.Live(&r), nil
	}
}
