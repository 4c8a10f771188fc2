package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/fuse"
	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// closeTimeout bounds the commit of what is dirty when a session ends.
const closeTimeout = 30 * time.Second

// mounter serves the sessions that the keeper grants. It implements
// keeper.Handler.
type mounter struct {
	cluster  *seaweed.Client
	stageDir string
	log      *slog.Logger
	buffers  *session.Buffers

	mu struct {
		sync.Mutex
		served map[string]*served
	}
}

// served is one session.
type served struct {
	fs      *fuse.FS
	session *session.Session
	stop    context.CancelFunc
	// done is closed when serving has ended and all is committed; err is what
	// could not be.
	done chan struct{}
	err  error
}

var _ keeper.Handler = (*mounter)(nil)

func newMounter(cluster *seaweed.Client, stageDir string, log *slog.Logger) *mounter {
	m := &mounter{cluster: cluster, stageDir: stageDir, log: log, buffers: session.NewBuffers(0)}
	m.mu.served = map[string]*served{}
	return m
}

// Serve implements keeper.Handler.
func (m *mounter) Serve(_ context.Context, g keeper.Grant) ([]byte, error) {
	fs, err := openFileSystem(m.cluster, m.stageDir, m.log, g)
	if err != nil {
		return nil, err
	}
	s, err := session.New(fs, g.FD, g.Init, session.Options{
		Log: m.log.With("volume", g.ID), InitReply: g.InitReply, Buffers: m.buffers,
	})
	if err != nil {
		return nil, err
	}
	if g.InitReply == nil {
		if err := s.Accept(); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	fs.Start(s.Notifier())
	if g.InitReply != nil {
		// The kernel knows names and numbers that the mounter before has given out:
		// it is to ask for them again. Kernels before 6.16 do so when they get ESTALE.
		if err := s.Notifier().IncEpoch(); err != nil {
			m.log.Warn("the kernel keeps its names", "volume", g.ID, "err", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	one := &served{fs: fs, session: s, stop: stop, done: make(chan struct{})}
	m.mu.Lock()
	m.mu.served[g.ID] = one
	m.mu.Unlock()
	go m.run(ctx, g, one)
	m.log.Info("session served", "volume", g.ID, "path", g.Target)
	return s.InitReply(), nil
}

// run serves until the session is unmounted or stopped.
func (m *mounter) run(ctx context.Context, g keeper.Grant, s *served) {
	err := s.session.Run(ctx)
	unmounted := err == nil
	if err != nil && ctx.Err() == nil {
		m.log.Error("a session ended badly", "volume", g.ID, "err", err)
	}
	if err := s.session.Close(); err != nil {
		m.log.Warn("a session was not closed", "volume", g.ID, "err", err)
	}
	commit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if s.err = s.fs.Close(commit); s.err != nil {
		m.log.Error("content was not committed", "volume", g.ID, "err", s.err)
	}
	m.mu.Lock()
	if m.mu.served[g.ID] == s {
		delete(m.mu.served, g.ID)
	}
	m.mu.Unlock()
	close(s.done)
	if unmounted {
		m.log.Info("session ended: it was unmounted", "volume", g.ID)
		g.Ended()
	}
}

// End implements keeper.Handler.
func (m *mounter) End(ctx context.Context, id string) error {
	m.mu.Lock()
	s := m.mu.served[id]
	m.mu.Unlock()
	if s == nil {
		return nil
	}
	s.stop()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends every session of this process; the mounts stay with the keeper.
func (m *mounter) close(ctx context.Context) {
	m.mu.Lock()
	ids := make([]string, 0, len(m.mu.served))
	for id := range m.mu.served {
		ids = append(ids, id)
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	for _, id := range ids {
		if err := m.End(ctx, id); err != nil {
			m.log.Error("a session was not ended cleanly", "volume", id, "err", err)
		}
	}
}
