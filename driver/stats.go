package driver

import (
	"context"
	"errors"
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
	n.told.note(knownID(req.GetVolumeId()), u, err)
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", req.GetVolumePath(), err)
	}
	resp := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit: csi.VolumeUsage_BYTES, Total: u.Total, Available: u.Available, Used: u.Used,
	}}}
	if u.Files > 0 {
		resp.Usage = append(resp.Usage, &csi.VolumeUsage{
			Unit: csi.VolumeUsage_INODES, Total: u.Files, Available: u.FilesFree, Used: u.Files - u.FilesFree,
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
	have := all.of(knownID(id))
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

// Usage is what statfs(2) says of a mount, in bytes and files.
type Usage struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
	Used      int64 `json:"used"`
	Files     int64 `json:"files"`
	FilesFree int64 `json:"files_free"`
}

// Statfs asks the kernel. On a mount that nobody serves it waits for as long as
// that lasts, and a process that waits there cannot be ended by a deadline of its
// own: so it is for a process that may be killed.
func Statfs(path string) (Usage, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return Usage{}, err
	}
	return Usage{
		Total:     int64(st.Blocks) * st.Frsize,
		Available: int64(st.Bavail) * st.Frsize,
		Used:      int64(st.Blocks-st.Bfree) * st.Frsize,
		Files:     int64(st.Files),
		FilesFree: int64(st.Ffree),
	}, nil
}

// stats measures without ever waiting for longer than asked. Measure is told to
// stop at its deadline and may need longer to obey, since the kernel lets go of a
// killed process only when its request was answered or taken back: meanwhile
// others wait for the same one instead of starting more.
type stats struct {
	measure func(ctx context.Context, path string) (Usage, error)
	mu      struct {
		sync.Mutex
		running map[string]*measurement
	}
}

type measurement struct {
	done  chan struct{}
	usage Usage
	err   error
}

// of measures path. ctx has the deadline.
func (s *stats) of(ctx context.Context, path string) (Usage, error) {
	m := s.join(ctx, path)
	select {
	case <-m.done:
		return m.usage, m.err
	case <-ctx.Done():
		return Usage{}, fmt.Errorf("the file system does not answer: %w", ctx.Err())
	}
}

// join returns the measurement of path that is under way, or begins one, which
// ends at ctx's deadline and not when its caller leaves.
func (s *stats) join(ctx context.Context, path string) *measurement {
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
	until, _ := ctx.Deadline()
	bounded, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	go func() {
		defer cancel()
		u, err := s.measure(bounded, path)
		m.usage, m.err = checkUsage(u, err)
		s.mu.Lock()
		delete(s.mu.running, path)
		s.mu.Unlock()
		close(m.done)
	}()
	return m
}

// checkUsage says what an error of statfs(2) means.
func checkUsage(u Usage, err error) (Usage, error) {
	var errno syscall.Errno
	switch {
	case storage.IsContext(err):
		return Usage{}, fmt.Errorf("the file system does not answer: %w", err)
	case errors.As(err, &errno) && mount.IsCorruptedMnt(errno):
		return Usage{}, storage.Errorf(storage.Unavailable, "statfs: nobody serves this mount now; staging the volume again mounts it anew: %w", err)
	case err != nil:
		return Usage{}, storage.Errorf(storage.Unavailable, "statfs: %w", err)
	case u.Total == 0:
		return Usage{}, storage.Errorf(storage.Unavailable, "statfs: the file system gave no size")
	}
	return u, nil
}
