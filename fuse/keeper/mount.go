package keeper

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes sessions. The order is: make it where nobody sees
// it, have it served, show it. Whatever fails before the last step leaves
// nothing.

// adoptWait is how long a request waits for the mounter to bring a session that
// is mounted and that this keeper does not hold.
const adoptWait = 10 * time.Second

func (k *Keeper) mount(ctx context.Context, r MountRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	leave, err := k.lock(ctx, r.Target, r.ID)
	if err != nil {
		return err
	}
	defer leave()

	if s := k.get(r.ID); s != nil {
		switch {
		case s.dead():
			if err := k.bury(ctx, s); err != nil {
				return err
			}
		case s.target != r.Target:
			return storage.Errorf(storage.Exists, "session %s is mounted at %s already", r.ID, s.target)
		case s.readOnly != r.ReadOnly || !sameJSON(s.config, r.Config):
			return storage.Errorf(storage.Exists, "session %s is mounted at %s with other options", r.ID, s.target)
		default:
			return k.stillShown(s)
		}
	}
	p, all, err := k.vacate(ctx, r.Target, nil)
	if err != nil {
		return err
	}
	defer p.close()
	if err := k.elsewhere(ctx, r.ID, all); err != nil {
		return err
	}
	if err := k.allow(p, all); err != nil {
		return err
	}
	return k.create(ctx, r, p)
}

// stillShown checks that nobody has unmounted a session at its target behind our
// back while binds keep it alive.
func (k *Keeper) stillShown(s *session) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	path, dev := s.where()
	if !slices.ContainsFunc(ofDev(all, dev), func(m mount) bool { return m.path == path }) {
		return storage.Errorf(storage.InUse, "session %s is no longer mounted at %s, but alive elsewhere: unmount its binds first", s.id, s.target)
	}
	return nil
}

// vacate returns the place at target once no mount is there: dead ones of ours
// are detached, anything else is an error. A mount of the session same is fine,
// and returned as it is.
func (k *Keeper) vacate(ctx context.Context, target string, same *session) (*place, []mount, error) {
	for {
		p, err := k.resolve(ctx, target)
		if err != nil {
			return nil, nil, err
		}
		all, err := mounts()
		if err != nil {
			p.close()
			return nil, nil, err
		}
		m, mounted := at(all, p)
		if !mounted {
			return p, all, nil
		}
		s := k.ofDevice(m.dev)
		if s != nil && s == same && !s.dead() {
			return p, all, nil
		}
		p.close()
		if err := k.detachDead(ctx, m, s); err != nil {
			return nil, nil, err
		}
	}
}

// detachDead detaches m if its session, s or one that is not held, is dead.
func (k *Keeper) detachDead(ctx context.Context, m mount, s *session) error {
	id, mine := idOf(m, k.tag)
	switch {
	case !mine:
		return storage.Errorf(storage.InUse, "path %s: %s (%s) is mounted there", m.path, m.source, m.fsType)
	case s != nil && !s.dead():
		return storage.Errorf(storage.Exists, "path %s: session %s is mounted there", m.path, s.id)
	case s == nil && !k.dead(ctx, m):
		return k.awaitAdoption(ctx, id)
	}
	k.log.Info("detaching a dead session's mount", "volume", id, "path", m.path)
	return umount(ctx, m, unix.MNT_DETACH)
}

// elsewhere refuses an id that is mounted, alive, though this keeper does not
// hold it (yet).
func (k *Keeper) elsewhere(ctx context.Context, id string, all []mount) error {
	for _, m := range all {
		if other, mine := idOf(m, k.tag); mine && other == id && !k.dead(ctx, m) {
			return k.awaitAdoption(ctx, id)
		}
	}
	return nil
}

// awaitAdoption waits for the mounter to bring a session. Even then the request
// is asked to come again: it began with another view of the world.
func (k *Keeper) awaitAdoption(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, adoptWait)
	defer cancel()
	_ = poll(ctx, func() bool { return k.get(id) != nil })
	return storage.Errorf(storage.Unavailable, "session %s is mounted, and held by a mounter that has only now, or not yet, come back to the keeper: try again", id)
}

// create makes the session, has it served and shows it at p.
func (k *Keeper) create(ctx context.Context, r MountRequest, p *place) (err error) {
	source, err := sourceOf(k.tag, r.ID, r.FSName)
	if err != nil {
		return err
	}
	if _, err := k.waitMounter(ctx, nil); err != nil {
		return err
	}
	d, err := newDevice(ctx, source, k.opts.MounterUID, r.ReadOnly, r.Context)
	if err != nil {
		return err
	}
	s := newSession(sessionMessage{ID: r.ID, Serial: rand.Text(), Target: r.Target, ReadOnly: r.ReadOnly, Config: r.Config, Init: d.init}, d.fd)
	defer func() { closeAll([]int{d.mount}) }()
	if err := k.put(s); err != nil {
		s.close()
		return err
	}
	if err := k.firstGrant(ctx, s); err != nil {
		k.undo(ctx, s)
		return err
	}
	if err := k.show(ctx, s, d.mount, p); err != nil {
		k.undo(ctx, s)
		return err
	}
	if _, dev := s.where(); dev != "" {
		if err := setReadAhead(dev); err != nil {
			k.log.Debug("read-ahead stays as it is", "volume", s.id, "err", err)
		}
	}
	k.log.Info("mounted", "volume", s.id, "path", r.Target)
	return nil
}

// firstGrant has a mounter serve a new session; when it dies over it, the next.
func (k *Keeper) firstGrant(ctx context.Context, s *session) error {
	for {
		m, err := k.waitMounter(ctx, nil)
		if err != nil {
			return err
		}
		if err = k.grant(ctx, s, m); err == nil || k.isMounter(m) && !m.conn.ended() || ctx.Err() != nil {
			return err
		}
	}
}

// show attaches a detached mount at p and checks that it is to be seen there.
func (k *Keeper) show(_ context.Context, s *session, tree int, p *place) error {
	id, err := mountID(tree)
	if err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", p.fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return pathError(p.path, err)
	}
	all, err := mounts()
	if err == nil {
		for _, m := range all {
			if m.id == id && m.path == p.path {
				if path, _ := s.where(); path == "" {
					s.shown(m.path, m.dev)
				}
				return nil
			}
		}
		err = storage.Errorf(storage.Busy, "path %s: the directory was moved while it was mounted on", p.path)
	}
	// By its descriptor, so it is surely this one; it is new, nobody uses it.
	_ = unix.Unmount(fdPath(tree), unix.MNT_DETACH)
	return err
}

// undo takes back a session that was never shown. Its failure was told already.
func (k *Keeper) undo(ctx context.Context, s *session) {
	ctx, cancel := k.onward(ctx)
	defer cancel()
	if err := s.turn(ctx); err == nil {
		defer s.leave()
	}
	k.mu.Lock()
	m := k.mu.mounter
	k.mu.Unlock()
	if m != nil && k.isMounter(m) {
		if err := m.conn.call(ctx, opEnd, s.endRequest(), nil); err != nil {
			k.log.Warn("a session that was taken back was not closed", "volume", s.id, "err", err)
		}
	}
	k.drop(s)
}

// lock takes the locks of an operation, in their order.
func (k *Keeper) lock(ctx context.Context, target, id string) (func(), error) {
	leaveTarget, err := k.keys.lock(ctx, targetKey(target))
	if err != nil {
		return nil, err
	}
	leaveID, err := k.keys.lock(ctx, idKey(id))
	if err != nil {
		leaveTarget()
		return nil, err
	}
	return func() {
		leaveID()
		leaveTarget()
	}, nil
}

// sameJSON compares but for white space.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
