package keeper

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the keeper's side of the mounter: who may be it, what it is
// granted, and what it brings along after the keeper was replaced.

const (
	// fenceWait: a mounter that was killed is gone within milliseconds.
	fenceWait = 2 * time.Second
	// grantTimeout bounds one attempt of a mounter to serve a session.
	grantTimeout = 30 * time.Second
	// regrantPause grows to regrantPauseMax between attempts that failed.
	regrantPause    = 200 * time.Millisecond
	regrantPauseMax = 10 * time.Second
)

// mounter is one connection of one.
type mounter struct {
	conn *conn
	proc process
	// slots: it reads into slots. Set by hello.
	slots bool

	// Guarded by Keeper.mu.
	greeted bool // it is, or was, the mounter: hello closes its pidfd
	ready   bool // it has offered what it holds
	lost    bool // the connection has ended
}

// handleMounter answers one mounter's questions.
func (k *Keeper) handleMounter(m *mounter) handleFunc {
	return func(ctx context.Context, op string, body json.RawMessage, fds []int) (any, error) {
		switch op {
		case opHello:
			closeAll(fds)
			var h helloMessage
			if err := json.Unmarshal(body, &h); err != nil {
				return nil, storage.Errorf(storage.Invalid, "a hello that cannot be read")
			}
			return nil, k.hello(ctx, m, h)
		case opOffer:
			var o offerMessage
			if err := json.Unmarshal(body, &o); err != nil || len(fds) == 0 {
				closeAll(fds)
				return nil, storage.Errorf(storage.Invalid, "an offer that cannot be read")
			}
			return nil, k.adopt(m, o, fds)
		case opReady:
			closeAll(fds)
			return nil, k.ready(ctx, m)
		case opEnded:
			closeAll(fds)
			var r idRequest
			if err := json.Unmarshal(body, &r); err != nil {
				return nil, storage.Errorf(storage.Invalid, "a message that cannot be read")
			}
			return nil, k.ended(ctx, r.ID)
		}
		closeAll(fds)
		return nil, storage.Errorf(storage.Unsupported, "operation %q: not for a mounter", op)
	}
}

// hello makes m the mounter, provided that no other process can still read
// requests: two readers would answer from two states of the world.
func (k *Keeper) hello(ctx context.Context, m *mounter, h helloMessage) error {
	if err := m.proc.visible(); err != nil {
		return err
	}
	leave, err := k.keys.lock(ctx, "mounter")
	if err != nil {
		return err
	}
	defer leave()
	k.mu.Lock()
	old := k.mu.mounter
	k.mu.Unlock()
	if old != nil && (old.proc.pid != m.proc.pid || old.proc.dead()) {
		wait, cancel := context.WithTimeout(ctx, fenceWait)
		defer cancel()
		if err := poll(wait, func() bool { return old.proc.gone(k.opts.NotifierThread) }); err != nil {
			return storage.Errorf(storage.Busy, "another mounter (process %d) still lives", old.proc.pid)
		}
	}
	k.mu.Lock()
	k.mu.mounter, m.greeted, m.slots = m, true, h.Slots && !k.opts.NoSlots
	k.mu.changeLocked()
	k.mu.Unlock()
	if old != nil {
		old.conn.close()
		old.proc.close()
	}
	k.log.Info("a mounter is here", "pid", m.proc.pid)
	return nil
}

// isMounter reports whether m has said hello and was not replaced.
func (k *Keeper) isMounter(m *mounter) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.mounter == m && !m.lost
}

// adopt takes a session that the mounter holds. Of what is mounted where, the
// keeper believes mountinfo only. It takes no lock of the id: a
// request that holds it may be waiting for just this offer.
func (k *Keeper) adopt(m *mounter, o offerMessage, fds []int) error {
	keep := false
	defer func() {
		if !keep {
			closeAll(fds)
		}
	}()
	if !k.isMounter(m) {
		return storage.Errorf(storage.Busy, "say hello first")
	}
	if err := checkID(o.ID); err != nil {
		return err
	}
	if !isFUSE(fds[0]) || len(fds) > 1 && !isSlots(fds[1]) || len(o.Init) == 0 {
		return storage.Errorf(storage.Invalid, "session %s: what is offered is no FUSE session", o.ID)
	}
	if s := k.get(o.ID); s != nil {
		if s.serial != o.Serial {
			return storage.Errorf(storage.NotFound, "session %s has ended, another one has its id", o.ID)
		}
		if o.Served {
			s.served(m, o.InitReply)
		}
		return nil
	}
	if connectionDead(fds[0]) {
		return storage.Errorf(storage.NotFound, "session %s has ended", o.ID)
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	var mine []mount
	for _, candidate := range all {
		if id, ok := idOf(candidate, k.tag); !ok || id != o.ID {
			continue
		}
		if c, ok := connectionOf(fds[0]); ok {
			if _, minor, _ := strings.Cut(candidate.dev, ":"); minor != strconv.Itoa(c) {
				continue
			}
		}
		mine = append(mine, candidate)
	}
	if len(mine) == 0 {
		return storage.Errorf(storage.NotFound, "session %s is mounted nowhere", o.ID)
	}
	own := mine[0]
	for _, candidate := range mine {
		if candidate.path == o.Target {
			own = candidate
		}
	}
	o.ReadOnly = own.options.ReadOnly
	if checkPath(o.Target) != nil {
		o.Target = own.path
	}
	s := newSession(o.sessionMessage, fds[0])
	if len(fds) > 1 {
		s.mu.slots = fds[1]
		closeAll(fds[2:])
		k.keepSlots(fds[1])
	}
	s.shown(own.path, own.dev)
	if o.Served {
		s.served(m, o.InitReply)
	}
	if err := k.put(s); err != nil {
		return err
	}
	keep = true
	k.log.Info("adopted a session from the mounter", "volume", s.id, "path", own.path)
	return nil
}

// ready ends the offers: the mounter is granted what it did not bring.
func (k *Keeper) ready(ctx context.Context, m *mounter) error {
	k.mu.Lock()
	if k.mu.mounter != m {
		k.mu.Unlock()
		return storage.Errorf(storage.Busy, "say hello first")
	}
	m.ready = true
	k.mu.changeLocked()
	k.mu.Unlock()
	for _, s := range k.all() {
		if _, dev := s.where(); dev != "" && s.server() != m {
			k.work.Go(func() { k.regrant(ctx, s, m) })
		}
	}
	return nil
}

// regrant grants a session to a successor, again and again: somebody's file
// operations wait for it.
func (k *Keeper) regrant(ctx context.Context, s *session, m *mounter) {
	if s.dead() {
		ctx, cancel := k.onward(ctx)
		defer cancel()
		if err := k.endDead(ctx, s); err != nil {
			k.log.Warn("an ended session was not closed", "volume", s.id, "err", err)
		}
		return
	}
	pause := regrantPause
	for first := true; ; first = false {
		attempt, cancel := k.onward(ctx)
		err := k.grant(attempt, s, m)
		cancel()
		if err == nil || !k.isMounter(m) || k.get(s.id) != s || s.dead() {
			return
		}
		if first {
			k.log.Error("a session is not served: the mounter refuses it; trying on", "volume", s.id, "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-k.stopped:
			timer.Stop()
			return
		}
		pause = min(2*pause, regrantPauseMax)
	}
}

// grant has m serve s.
func (k *Keeper) grant(ctx context.Context, s *session, m *mounter) error {
	if err := s.turn(ctx); err != nil {
		return err
	}
	defer s.leave()
	if s.server() == m {
		return nil
	}
	for _, refused := range []bool{false, true} {
		if m.slots {
			if err := k.equip(s, refused); err != nil {
				return err
			}
		}
		answer, err := s.grant(ctx, m)
		if err != nil {
			return err
		}
		if !answer.Refused {
			s.served(m, answer.InitReply)
			return nil
		}
		k.log.Warn("the mounter cannot use the slots of a session", "volume", s.id)
	}
	return storage.Errorf(storage.Unsupported, "session %s: the mounter refuses fresh slots", s.id)
}

// end has the mounter close a session, and forgets it. When that fails, the
// session stays in the table and the caller may try again. A mounter that dies
// meanwhile is none: the next one is asked.
func (k *Keeper) end(ctx context.Context, s *session) error {
	var m *mounter
	for {
		next, err := k.waitMounter(ctx, m)
		if err != nil {
			return err
		}
		m = next
		if err = k.endBy(ctx, m, s); err == nil {
			break
		}
		if !m.conn.ended() {
			return err
		}
	}
	k.drop(s)
	k.log.Info("a session has ended", "volume", s.id, "path", s.target)
	return nil
}

// endBy has m close a session.
func (k *Keeper) endBy(ctx context.Context, m *mounter, s *session) error {
	if err := s.turn(ctx); err != nil {
		return err
	}
	defer s.leave()
	return m.conn.call(ctx, opEnd, s.endRequest(), nil)
}

// ended is told by the mounter: somebody unmounted or aborted the session behind
// our back.
func (k *Keeper) ended(ctx context.Context, id string) error {
	s := k.get(id)
	if s == nil {
		return storage.Errorf(storage.NotFound, "session %s is not known", id)
	}
	k.work.Go(func() {
		ctx, cancel := k.onward(ctx)
		defer cancel()
		if err := k.endDead(ctx, s); err != nil {
			k.log.Warn("an ended session was not closed", "volume", id, "err", err)
		}
	})
	return nil
}

// waitMounter returns the mounter, waiting for one that is not the lost one.
func (k *Keeper) waitMounter(ctx context.Context, lost *mounter) (*mounter, error) {
	wait := k.opts.MounterWait
	if wait <= 0 {
		wait = 10 * time.Second
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		k.mu.Lock()
		m, changed := k.mu.mounter, k.mu.changed
		ok := m != nil && m != lost && m.ready && !m.lost
		k.mu.Unlock()
		if ok {
			return m, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, storage.Errorf(storage.Unavailable, "no mounter has come within %v: is holdfast-mount serve running?", wait)
		case <-k.stopped:
			return nil, storage.Errorf(storage.Unavailable, "no mounter has come, and the keeper is being stopped")
		case <-ctx.Done():
			return nil, storage.Errorf(storage.Unavailable, "no mounter has come: %w", context.Cause(ctx))
		}
	}
}
