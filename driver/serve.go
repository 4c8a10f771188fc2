package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// socketMode lets only the owner connect: whoever speaks CSI may delete every
	// volume.
	socketMode = 0o600
	// goodbye bounds the wait for calls under way at the end.
	goodbye = 10 * time.Second
	// dialTimeout bounds the test whether somebody serves a socket.
	dialTimeout = 2 * time.Second
)

// Service is Identity, Controller or Node.
type Service interface {
	Register(s grpc.ServiceRegistrar)
}

// ServeOptions of Serve. The zero value works.
type ServeOptions struct {
	Log *slog.Logger
	// Observe, when set, is told of each call that has ended: its method without the
	// service, such as NodeStageVolume, the code that the caller got, how long it took.
	Observe func(method string, code codes.Code, took time.Duration)
}

// Serve serves the services on a unix socket until ctx ends, and returns nil
// then. A socket that a dead process left is replaced; one that a live process
// serves is an error.
func Serve(ctx context.Context, socket string, o ServeOptions, services ...Service) error {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	socket = strings.TrimPrefix(socket, "unix://")
	l, err := listen(ctx, socket)
	if err != nil {
		return err
	}
	defer l.remove()
	s := grpc.NewServer(grpc.UnaryInterceptor(intercept(log, o.Observe)))
	for _, service := range services {
		service.Register(s)
	}
	stopped := make(chan struct{})
	serving, cancel := context.WithCancel(ctx)
	go func() {
		defer close(stopped)
		<-serving.Done()
		graceful := time.AfterFunc(goodbye, s.Stop)
		defer graceful.Stop()
		s.GracefulStop()
	}()
	log.InfoContext(ctx, "serving CSI", slog.String("path", socket))
	err = s.Serve(l)
	cancel()
	<-stopped
	if ctx.Err() != nil || err == nil {
		return nil
	}
	return fmt.Errorf("serve %s: %w", socket, err)
}

// listener is a socket at a path, and what was there when it was made.
type listener struct {
	net.Listener
	path string
	made os.FileInfo
}

// listen makes the socket within a folder of its own, closes it to others, and
// moves it into place: nobody can connect before its mode is right, and a dead
// socket is replaced in one step.
func listen(ctx context.Context, path string) (_ *listener, err error) {
	if err := checkStale(ctx, path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	at := filepath.Join(dir, "s")
	defer func() {
		if err != nil {
			_ = os.Remove(at)
		}
		_ = os.Remove(dir)
	}()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", at)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	made, err := place(at, path)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	return &listener{Listener: l, path: path, made: made}, nil
}

func place(at, path string) (os.FileInfo, error) {
	if err := os.Chmod(at, socketMode); err != nil {
		return nil, err
	}
	made, err := os.Lstat(at)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(at, path)
}

// checkStale says whether the path may be taken.
func checkStale(ctx context.Context, path string) error {
	have, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if have.Mode().Type() != fs.ModeSocket {
		return storage.Errorf(storage.InUse, "%s is there and is no socket: it stays; choose another path", path)
	}
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return storage.Errorf(storage.InUse, "another process serves %s already", path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("is %s in use: %w", path, err)
}

// remove removes the socket, if it is still ours: a successor may have put its
// own there.
func (l *listener) remove() {
	if have, err := os.Lstat(l.path); err == nil && os.SameFile(have, l.made) {
		_ = os.Remove(l.path)
	}
}
