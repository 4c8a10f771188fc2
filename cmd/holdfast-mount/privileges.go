package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes sure that the process that parses what strangers write has no
// power over the machine.

// checkUnprivileged refuses to serve as root or with any capability.
func checkUnprivileged() error {
	if os.Getuid() == 0 || os.Geteuid() == 0 {
		return storage.Errorf(storage.Denied, "the mounter must not run as root: start it as an unprivileged user (the keeper is the one that mounts)")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return checkCapabilities(string(status))
}

// checkCapabilities reads a /proc/PID/status.
func checkCapabilities(status string) error {
	seen := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		if key != "CapEff" && key != "CapPrm" {
			continue
		}
		seen++
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
		if set != 0 {
			return storage.Errorf(storage.Denied, "the mounter must not have capabilities (%s is %#x): drop them all", key, set)
		}
	}
	if seen != 2 {
		return storage.Errorf(storage.Other, "capabilities: /proc/self/status does not tell them")
	}
	return nil
}

// noNewPrivileges keeps this process and its children from gaining privileges by
// exec. Where the runtime cannot reach every thread (cgo) it is the calling
// thread, which must be the one that starts the children.
func noNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errors.Is(errno, syscall.ENOTSUP) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("no new privileges: %w", errno)
	}
	return nil
}
