package keeper

import (
	"context"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file tells a session that is slow from one that is dead. Dead is what the
// kernel says of its connection, for ever; whatever else takes long is slow, and
// nobody may take it away for that.

// reportTimeout bounds the question to the mounter, which itself asks the cluster
// for less.
const reportTimeout = 3 * time.Second

func (k *Keeper) health(ctx context.Context, id string) (Health, error) {
	s := k.get(id)
	if s == nil {
		return k.orphanHealth(ctx, id)
	}
	_, dev := s.where()
	h := Health{Dead: s.dead(), Waiting: waiting(dev)}
	k.mu.Lock()
	m := k.mu.mounter
	h.Serving = !h.Dead && m != nil && !m.lost
	k.mu.Unlock()
	if h.Serving = h.Serving && s.server() == m; !h.Serving {
		return h, nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	switch err := m.conn.call(ctx, opReport, idRequest{ID: id}, &h.Report); {
	case err == nil, storage.Is(err, storage.Unsupported): // it is of an older version, and it answers
	case ctx.Err() != nil:
		h.Silent = "the mounter does not answer the keeper within " + reportTimeout.String()
	default:
		h.Silent = err.Error()
	}
	return h, nil
}

// orphanHealth is that of a mount that an earlier keeper made and no mounter has
// brought.
func (k *Keeper) orphanHealth(ctx context.Context, id string) (Health, error) {
	all, err := mounts()
	if err != nil {
		return Health{}, err
	}
	for _, m := range all {
		if other, mine := idOf(m, k.tag); mine && other == id {
			return Health{Dead: k.dead(ctx, m), Waiting: waiting(m.dev)}, nil
		}
	}
	return Health{}, storage.Errorf(storage.NotFound, "there is no session %s", id)
}

// waiting reads the kernel's count of requests without an answer from the control
// file system of FUSE. It is mounted for a moment where nobody sees it: few
// containers have it.
func waiting(dev string) int {
	_, minor, ok := strings.Cut(dev, ":")
	if !ok {
		return -1
	}
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1
	}
	defer closeAll([]int{fs})
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1
	}
	defer closeAll([]int{root})
	f, err := unix.Openat(root, minor+"/waiting", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1
	}
	defer closeAll([]int{f})
	buf := make([]byte, 32)
	n, err := unix.Read(f, buf)
	if err != nil {
		return -1
	}
	count, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return -1
	}
	return count
}
