package keeper

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file unmounts what is alive, plainly, and detaches what is dead.

// namespaceWait is how long the kernel may take to end a session after its last
// mount here went; longer means that another mount namespace has one too.
const namespaceWait = 10 * time.Second

func (k *Keeper) unmount(ctx context.Context, target string) error {
	if err := checkPath(target); err != nil {
		return err
	}
	leave, err := k.keys.lock(ctx, targetKey(target))
	if err != nil {
		return err
	}
	defer leave()
	for {
		m, mounted, err := k.mountedAt(ctx, target)
		if err != nil {
			return err
		}
		if !mounted {
			return k.finish(ctx, target)
		}
		id, mine := idOf(m, k.tag)
		if !mine {
			return storage.Errorf(storage.Denied, "path %s: %s (%s) is mounted there, and not by this keeper", target, m.source, m.fsType)
		}
		s := k.ofDevice(m.dev)
		if s != nil && !s.dead() {
			return k.unmountLive(ctx, s, m)
		}
		if err := k.detachDead(ctx, m, s); err != nil {
			return err
		}
		k.log.Info("unmounted", "volume", id, "path", target)
	}
}

// mountedAt returns the mount at a path. A path that does not exist has none.
func (k *Keeper) mountedAt(ctx context.Context, target string) (mount, bool, error) {
	p, err := k.resolve(ctx, target)
	switch {
	case storage.Is(err, storage.NotFound):
		return mount{}, false, nil
	case err != nil:
		return mount{}, false, err
	}
	defer p.close()
	all, err := mounts()
	if err != nil {
		return mount{}, false, err
	}
	m, mounted := at(all, p)
	return m, mounted, nil
}

// unmountLive takes one mount of a live session away; the last one ends it.
func (k *Keeper) unmountLive(ctx context.Context, s *session, m mount) error {
	leave, err := k.keys.lock(ctx, idKey(s.id))
	if err != nil {
		return err
	}
	defer leave()
	all, err := mounts()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(ofDev(all, m.dev), func(o mount) bool { return o.id == m.id })
	if own, _ := s.where(); m.path == own && len(others) > 0 {
		return storage.Errorf(storage.InUse, "unmount %s: session %s is bound to %s still", m.path, s.id, paths(others))
	}
	if len(others) == 0 {
		// The mounter must be there to make safe what was acknowledged.
		if _, err := k.waitMounter(ctx, nil); err != nil {
			return err
		}
	}
	if err := umount(ctx, m, 0); err != nil {
		return err
	}
	k.log.Info("unmounted", "volume", s.id, "path", m.path)
	if len(others) > 0 {
		return nil
	}
	return k.finishSession(ctx, s)
}

// finish ends a session whose last mount is gone and whose end was not heard of,
// so that an Unmount that failed halfway can be repeated.
func (k *Keeper) finish(ctx context.Context, target string) error {
	for _, s := range k.all() {
		path, dev := s.where()
		if dev == "" || (s.target != target && path != target) {
			continue
		}
		leave, err := k.keys.lock(ctx, idKey(s.id))
		if err != nil {
			return err
		}
		defer leave()
		all, err := mounts()
		if err != nil {
			return err
		}
		if k.get(s.id) == s && len(ofDev(all, dev)) == 0 {
			return k.finishSession(ctx, s)
		}
	}
	return nil
}

// finishSession ends a session that is mounted nowhere in this namespace.
func (k *Keeper) finishSession(ctx context.Context, s *session) error {
	wait, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	if err := poll(wait, s.dead); err != nil {
		return storage.Errorf(storage.InUse, "session %s is unmounted here, but another mount namespace has it still", s.id)
	}
	return k.end(ctx, s)
}

// settle has the mounter bring to safety what ended sessions of an id have left on
// the node: those of which nobody is told, since keeper and mounter died together, or
// the machine went down.
func (k *Keeper) settle(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	leave, err := k.keys.lock(ctx, idKey(id))
	if err != nil {
		return err
	}
	defer leave()
	if k.get(id) != nil {
		return storage.Errorf(storage.InUse, "session %s has not ended", id)
	}
	m, err := k.waitMounter(ctx, nil)
	if err != nil {
		return err
	}
	return m.conn.call(ctx, opEnd, endRequest{ID: id}, nil)
}

// bury detaches every mount of a dead session and ends it.
func (k *Keeper) bury(ctx context.Context, s *session) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	_, dev := s.where()
	found := ofDev(all, dev)
	for _, m := range slices.Backward(found) {
		if err := umount(ctx, m, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return k.end(ctx, s)
}

// reap detaches the mounts of every dead session of this run folder, the one on
// top first, and returns where they were.
func (k *Keeper) reap(ctx context.Context) ([]string, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var detached []string
	var failed error
	gone := make(map[*session]bool)
	for _, m := range slices.Backward(all) {
		id, mine := idOf(m, k.tag)
		if !mine {
			continue
		}
		s := k.ofDevice(m.dev)
		if s != nil && !s.dead() || s == nil && !k.dead(ctx, m) {
			continue
		}
		if err := umount(ctx, m, unix.MNT_DETACH); err != nil {
			failed = err
			continue
		}
		k.log.Warn("detached a dead session's mount", "volume", id, "path", m.path)
		detached = append(detached, m.path)
		if s != nil {
			gone[s] = true
		}
	}
	// Without a mounter they wait for one (regrant).
	k.mu.Lock()
	current := k.mu.mounter
	here := current != nil && current.ready && !current.lost
	k.mu.Unlock()
	for s := range gone {
		if !here {
			break
		}
		if err := k.endDead(ctx, s); err != nil {
			failed = err
		}
	}
	slices.Sort(detached)
	return detached, failed
}

func (k *Keeper) endDead(ctx context.Context, s *session) error {
	leave, err := k.keys.lock(ctx, idKey(s.id))
	if err != nil {
		return err
	}
	defer leave()
	if k.get(s.id) != s || !s.dead() {
		return nil
	}
	return k.end(ctx, s)
}

func paths(all []mount) string {
	names := make([]string, 0, len(all))
	for _, m := range all {
		names = append(names, m.path)
	}
	return strings.Join(names, ", ")
}
