package doctor

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// features are the system calls that the keeper and the mounter stand on, each
// with a harmless call of it. Any answer but ENOSYS shows that it is there: most
// of these calls are wrong on purpose.
var features = []struct {
	name, since string
	call        func() error
}{
	{"memfd_create", "3.17", func() error {
		fd, err := unix.MemfdCreate("holdfast", unix.MFD_CLOEXEC)
		return closed(fd, err)
	}},
	{"fsopen", "5.2", func() error {
		fd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
		return closed(fd, err)
	}},
	{"open_tree", "5.2", func() error {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLOEXEC)
		return closed(fd, err)
	}},
	{"move_mount", "5.2", func() error { return unix.MoveMount(-1, "", -1, "", 0) }},
	{"pidfd_open", "5.3", func() error {
		fd, err := unix.PidfdOpen(unix.Getpid(), 0)
		return closed(fd, err)
	}},
	{"openat2", "5.6", func() error {
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV})
		return closed(fd, err)
	}},
	{"mount_setattr", "5.12", func() error { return unix.MountSetattr(-1, "", 0, &unix.MountAttr{}) }},
}

// closed is err, or what closing the descriptor gives.
func closed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Kernel asks the kernel for each system call that is used.
func Kernel(context.Context) Finding {
	const name = "kernel"
	var lacks []string
	since := ""
	for _, f := range features {
		if errors.Is(f.call(), syscall.ENOSYS) {
			lacks = append(lacks, f.name)
			since = f.since
		}
	}
	release := "Linux"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release += " " + unix.ByteSliceToString(u.Release[:])
	}
	if lacks != nil {
		return missing(name, release+" lacks "+strings.Join(lacks, ", "),
			"use Linux "+since+" or later (in a container: a seccomp profile that allows these calls)")
	}
	return found(name, release)
}
