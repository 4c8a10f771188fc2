package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes a session in the kernel: a superblock with its /dev/fuse
// descriptor and a mount that is not shown anywhere yet. mount(2) was the
// alternative: one errno for everything that can be wrong, option strings to
// escape, and a mount that applications see before anybody serves it.

const (
	// MaxRead is the largest READ. It must be what the mounter's buffers hold
	// (session.MaxWrite).
	MaxRead = 1 << 20

	// readAheadKB replaces the kernel's 128: read-ahead fills the largest READ.
	readAheadKB = 1024

	// initTimeout: the kernel has queued INIT before it returns.
	initTimeout = 5 * time.Second
)

// device is a session that was just made.
type device struct {
	fd    int // /dev/fuse, non-blocking
	mount int // the detached mount; closing it takes the session away
	init  []byte
}

func (d *device) close() {
	closeAll([]int{d.mount, d.fd})
}

// newDevice makes a session for a mounter of the given uid.
func newDevice(ctx context.Context, source string, uid int, readOnly bool, label string) (*device, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, deviceError(err)
	}
	d := &device{fd: fd, mount: -1}
	if d.mount, err = makeMount(fd, source, uid, readOnly, label); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if d.init, err = readInit(ctx, fd); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func deviceError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return storage.Errorf(storage.Unsupported, "this machine has no /dev/fuse: load the module (modprobe fuse), or, in a container, mount the host's /dev/fuse into it")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return storage.Errorf(storage.Unsupported, "the kernel has no FUSE: load the module (modprobe fuse)")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return storage.Errorf(storage.Unsupported, "the keeper may not open /dev/fuse: it must run as root, and a container needs privileged: true")
	}
	return fmt.Errorf("open /dev/fuse: %w", err)
}

func makeMount(fd int, source string, uid int, readOnly bool, label string) (int, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return -1, deviceError(err)
	case errors.Is(err, unix.ENOSYS):
		return -1, storage.Errorf(storage.Unsupported, "the kernel has no fsopen (5.12 or newer is needed)")
	case errors.Is(err, unix.EPERM):
		return -1, storage.Errorf(storage.Unsupported, "the keeper may not mount: it needs CAP_SYS_ADMIN")
	case err != nil:
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer func() { _ = unix.Close(fs) }()

	type option struct{ key, value string }
	for _, o := range []option{
		{"source", source},
		{"subtype", "holdfast"},
		{"fd", strconv.Itoa(fd)},
		{"rootmode", "40000"},
		{"user_id", strconv.Itoa(uid)},
		{"group_id", strconv.Itoa(uid)},
		{"max_read", strconv.Itoa(MaxRead)},
	} {
		if err := unix.FsconfigSetString(fs, o.key, o.value); err != nil {
			return -1, contextError(fs, "mount option "+o.key, err)
		}
	}
	if label != "" {
		if err := unix.FsconfigSetString(fs, "context", label); err != nil {
			if _, no := os.Stat("/sys/fs/selinux/enforce"); errors.Is(no, os.ErrNotExist) && errors.Is(err, unix.EINVAL) {
				return -1, storage.Errorf(storage.Unsupported, "mount option context=%s: this machine's kernel has no SELinux, or it is off", label)
			}
			return -1, contextError(fs, "mount option context", err)
		}
	}
	// Everybody may come in, and the kernel checks modes.
	flags := []string{"allow_other", "default_permissions"}
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if readOnly {
		flags = append(flags, "ro")
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	for _, f := range flags {
		if err := unix.FsconfigSetFlag(fs, f); err != nil {
			return -1, contextError(fs, "mount option "+f, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, contextError(fs, "make the file system", err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, contextError(fs, "fsmount", err)
	}
	return m, nil
}

// contextError adds what the kernel says in words: the descriptor of a file
// system context is read for it.
func contextError(fs int, what string, err error) error {
	var said []string
	buf := make([]byte, 4096)
	for {
		n, rerr := unix.Read(fs, buf)
		if rerr != nil || n <= 0 {
			break
		}
		said = append(said, strings.TrimSpace(string(buf[:n])))
	}
	if len(said) > 0 {
		return fmt.Errorf("%s: %w (%s)", what, err, strings.Join(said, "; "))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// readInit reads the first request.
func readInit(ctx context.Context, fd int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	buf := make([]byte, 64<<10)
	var n int
	var err error
	waited := poll(ctx, func() bool {
		n, err = unix.Read(fd, buf)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waited != nil {
		return nil, fmt.Errorf("read INIT: %w", waited)
	}
	if err != nil {
		return nil, fmt.Errorf("read INIT: %w", err)
	}
	return append([]byte(nil), buf[:n]...), nil
}

// setReadAhead is best effort: /sys is read-only in many containers.
func setReadAhead(dev string) error {
	path := filepath.Join("/sys/class/bdi", dev, "read_ahead_kb")
	return os.WriteFile(path, []byte(strconv.Itoa(readAheadKB)), 0o644)
}

// isFUSE reports whether fd is a /dev/fuse (10:229).
func isFUSE(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(10, 229)
}

// connectionOf returns the connection's number, which is the minor device number
// of its mounts, where the kernel tells it.
func connectionOf(fd int) (int, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, false
	}
	c, err := infoField(string(b), "fuse_connection")
	return c, err == nil
}
