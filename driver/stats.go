package driver

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/mount-utils"

	"github.com/holdfast-csi/holdfast/storage"
)

// NodeGetVolumeStats implements csi.NodeServer. The figures are those of df in
// the pod. A measurement that fails is an error, never a zero: an alert on a full
// volume must not fall silent because the volume does not answer.
func (n *Node) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if _, err := n.mountedAt(ctx, req.GetVolumeId(), req.GetVolumePath()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.o.StatTimeout)
	defer cancel()
	u, err := n.stats.of(ctx, req.GetVolumePath())
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", req.GetVolumePath(), err)
	}
	resp := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: u.total, Available: u.available, Used: u.used,
	}}}
	if u.files > 0 {
		resp.Usage = append(resp.Usage, &csi.VolumeUsage{
			Unit: csi.VolumeUsage_INODES, Total: u.files, Available: u.filesFree, Used: u.files - u.filesFree,
		})
	}
	return resp, nil
}

// mountedAt returns the mount of a volume that can be seen at path.
func (n *Node) mountedAt(ctx context.Context, id, path string) (*Mounted, error) {
	if err := needID(id); err != nil {
		return nil, err
	}
	if path == "" {
		return nil, storage.Errorf(storage.Invalid, "the volume path is missing")
	}
	all, err := n.mounts(ctx)
	if err != nil {
		return nil, err
	}
	have := all.of(id)
	if have == nil || (!samePath(have.Target, path) && !have.boundAt(path)) {
		return nil, storage.Errorf(storage.NotFound, "volume %s is not mounted at %s", id, path)
	}
	// Without this the disk beneath a lost mount would be measured.
	mounted, _, err := n.table.Mounted(path)
	if err != nil {
		return nil, err
	}
	if !mounted {
		return nil, storage.Errorf(storage.NotFound, "volume %s is not mounted at %s", id, path)
	}
	return have, nil
}

// usage in bytes and files.
type usage struct{ total, available, used, files, filesFree int64 }

// stats measures without ever waiting for longer than asked. A call to the
// kernel cannot be taken back, so while one hangs on a path others wait for the
// same one instead of starting more.
type stats struct {
	measure func(path string) (usage, error)
	mu      struct {
		sync.Mutex
		running map[string]*measurement
	}
}

type measurement struct {
	done  chan struct{}
	usage usage
	err   error
}

func (s *stats) of(ctx context.Context, path string) (usage, error) {
	m := s.join(path)
	select {
	case <-m.done:
		return m.usage, m.err
	case <-ctx.Done():
		return usage{}, fmt.Errorf("the file system does not answer: %w", ctx.Err())
	}
}

// join returns the measurement of path that is under way, or begins one.
func (s *stats) join(path string) *measurement {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.mu.running[path]; ok {
		return m
	}
	m := &measurement{done: make(chan struct{})}
	if s.mu.running == nil {
		s.mu.running = map[string]*measurement{}
	}
	s.mu.running[path] = m
	go func() {
		m.usage, m.err = s.measure(path)
		s.mu.Lock()
		delete(s.mu.running, path)
		s.mu.Unlock()
		close(m.done)
	}()
	return m
}

func statfs(path string) (usage, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		if mount.IsCorruptedMnt(err) {
			return usage{}, storage.Errorf(storage.Unavailable, "statfs: nobody serves this mount now; unstaging and staging the volume mounts it anew: %w", err)
		}
		return usage{}, storage.Errorf(storage.Unavailable, "statfs: %w", err)
	}
	if st.Blocks == 0 {
		return usage{}, storage.Errorf(storage.Unavailable, "statfs: the file system gave no size")
	}
	return usage{
		total:     int64(st.Blocks) * st.Frsize,
		available: int64(st.Bavail) * st.Frsize,
		used:      int64(st.Blocks-st.Bfree) * st.Frsize,
		files:     int64(st.Files),
		filesFree: int64(st.Ffree),
	}, nil
}
