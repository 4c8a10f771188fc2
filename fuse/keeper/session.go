package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// session is what the keeper keeps of one.
type session struct {
	// Fixed once it is in the table.
	id, serial string
	target     string // as the node wrote it
	readOnly   bool
	config     json.RawMessage
	init       []byte

	// granting is held while a mounter is asked to serve it.
	granting chan struct{}

	mu struct {
		sync.Mutex
		fd, slots int    // -1 when closed, or when there are none
		reply     []byte // the answer to INIT, nil before the first serve
		// resend: a mounter may have read requests that slots does not hold.
		resend bool
		// path and dev are empty until the mount is shown.
		path, dev string
		servedBy  *mounter
	}
}

func (s *session) endRequest() endRequest {
	return endRequest{ID: s.id, Serial: s.serial, ReadOnly: s.readOnly, Config: s.config}
}

func newSession(m sessionMessage, fd int) *session {
	s := &session{
		id: m.ID, serial: m.Serial, target: m.Target, readOnly: m.ReadOnly, config: m.Config, init: m.Init,
		granting: make(chan struct{}, 1),
	}
	s.mu.fd, s.mu.slots, s.mu.reply, s.mu.resend = fd, -1, m.InitReply, m.Resend
	return s
}

// grant asks a mounter to serve the session.
func (s *session) grant(ctx context.Context, m *mounter) (answer grantAnswer, err error) {
	message, fds, err := s.message(m.slots)
	if err != nil {
		return answer, err
	}
	defer closeAll(fds)
	err = m.conn.call(ctx, opGrant, message, &answer, fds...)
	return answer, err
}

// message returns the session in the form that travels, and duplicates of its
// descriptors, which the caller closes. Who does not read into slots does not get
// them: what such a mounter leaves has to be sent again.
func (s *session) message(slots bool) (sessionMessage, []int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := sessionMessage{
		ID: s.id, Serial: s.serial, Target: s.target, ReadOnly: s.readOnly, Config: s.config,
		Init: s.init, InitReply: s.mu.reply, Resend: s.mu.resend,
	}
	if s.mu.fd < 0 {
		return m, nil, storage.Errorf(storage.NotFound, "session %s has ended", s.id)
	}
	var fds []int
	if !slots {
		s.mu.resend = true
	}
	for _, fd := range []int{s.mu.fd, s.mu.slots} {
		if fd < 0 || fd == s.mu.slots && !slots {
			continue
		}
		dup, err := duplicate(fd)
		if err != nil {
			closeAll(fds)
			return m, nil, fmt.Errorf("session %s: %w", s.id, err)
		}
		fds = append(fds, dup)
	}
	return m, fds, nil
}

// dead reports whether the session has ended in the kernel: unmounted
// everywhere, or aborted.
func (s *session) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.fd < 0 || connectionDead(s.mu.fd)
}

func connectionDead(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
	}
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range []*int{&s.mu.fd, &s.mu.slots} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// shown records where the mount is.
func (s *session) shown(path, dev string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.path, s.mu.dev = path, dev
}

// where returns the path and device of the mount, empty before it is shown.
func (s *session) where() (path, dev string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.path, s.mu.dev
}

// served records the mounter that serves the session, and the answer to INIT.
func (s *session) served(m *mounter, reply []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.servedBy = m
	s.mu.resend = !m.slots
	if s.mu.reply == nil {
		s.mu.reply = reply
	}
}

// turn waits for the right to ask a mounter about the session.
func (s *session) turn(ctx context.Context) error {
	select {
	case s.granting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *session) leave() { <-s.granting }

func (s *session) server() *mounter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.servedBy
}

// table is the sessions and the mounter. It is Keeper.mu's.
type table struct {
	sync.Mutex
	sessions map[string]*session
	// mounter is the last one that said hello, gone or not: the next one is
	// fenced against it.
	mounter *mounter
	// changed is closed, and replaced, at every change.
	changed chan struct{}
	closing bool
	// slots is the memfd that new sessions get a copy of, -1 before the first.
	slots int
}

func (t *table) changeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// get returns a session, or nil.
func (k *Keeper) get(id string) *session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.sessions[id]
}

// ofDevice returns the session behind a mount, or nil.
func (k *Keeper) ofDevice(dev string) *session {
	for _, s := range k.all() {
		if _, d := s.where(); d == dev && d != "" {
			return s
		}
	}
	return nil
}

// all returns the sessions, in no order.
func (k *Keeper) all() []*session {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*session, 0, len(k.mu.sessions))
	for _, s := range k.mu.sessions {
		all = append(all, s)
	}
	return all
}

// put enters a session.
func (k *Keeper) put(s *session) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.closing {
		return storage.Errorf(storage.Unavailable, "the keeper is shutting down")
	}
	if k.mu.sessions[s.id] != nil {
		return storage.Errorf(storage.Exists, "session %s exists", s.id)
	}
	k.mu.sessions[s.id] = s
	k.mu.changeLocked()
	return nil
}

// drop forgets a session and closes the keeper's copies of its descriptors.
func (k *Keeper) drop(s *session) {
	k.mu.Lock()
	if k.mu.sessions[s.id] == s {
		delete(k.mu.sessions, s.id)
	}
	k.mu.changeLocked()
	k.mu.Unlock()
	s.close()
}
