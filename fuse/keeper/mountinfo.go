package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file reads /proc/self/mountinfo, the only truth about what is mounted. It
// never touches a mount: a FUSE mount whose server is away hangs who does.

const (
	// fsType is what a mount of ours is, to the kernel.
	fsType = "fuse.holdfast"
	// maxSource is the longest string that fsconfig(2) takes.
	maxSource = 255
)

// mount is one line of mountinfo.
type mount struct {
	id, parent int
	dev        string // MAJOR:MINOR, the same for all mounts of a session
	path       string
	fsType     string
	source     string
	options    BindOptions
}

// mounts returns all mounts that this process sees.
func mounts() ([]mount, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	all := make([]mount, 0, len(infos))
	for _, i := range infos {
		options := strings.Split(i.Options, ",")
		all = append(all, mount{
			id: i.ID, parent: i.Parent, dev: fmt.Sprintf("%d:%d", i.Major, i.Minor), path: i.Mountpoint,
			fsType: i.FSType, source: i.Source,
			options: BindOptions{ReadOnly: slices.Contains(options, "ro"), NoExec: slices.Contains(options, "noexec")},
		})
	}
	return all, nil
}

// ofDev returns the mounts of one session, in the order of mountinfo.
func ofDev(all []mount, dev string) []mount {
	var found []mount
	for _, m := range all {
		if m.dev == dev && dev != "" {
			found = append(found, m)
		}
	}
	return found
}

// at returns the mount whose root is at p, if p is a mount point.
func at(all []mount, p *place) (mount, bool) {
	for _, m := range all {
		if m.id == p.mount {
			return m, m.path == p.path
		}
	}
	return mount{}, false
}

// tagOf makes a run folder's tag. Two keepers on one machine have two folders.
func tagOf(runDir string) string {
	sum := sha256.Sum256([]byte(runDir))
	return hex.EncodeToString(sum[:4])
}

// sourceOf makes the source of a session's mount.
func sourceOf(tag, id, name string) (string, error) {
	s := "holdfast:" + tag + ":" + url.QueryEscape(id)
	if name != "" && name != id {
		s += ":" + url.QueryEscape(name)
	}
	if len(s) > maxSource {
		return "", storage.Errorf(storage.Invalid, "session id and file system name are too long: %d bytes, at most %d fit", len(s), maxSource)
	}
	return s, nil
}

// idOf returns the session id of a mount that a keeper of this tag has made.
func idOf(m mount, tag string) (string, bool) {
	if m.fsType != fsType {
		return "", false
	}
	parts := strings.Split(m.source, ":")
	if len(parts) < 3 || parts[0] != "holdfast" || parts[1] != tag {
		return "", false
	}
	id, err := url.QueryUnescape(parts[2])
	return id, err == nil
}

// mountID returns the id of the mount that an open file is on, without asking the
// file system.
func mountID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("mount id: %w", err)
	}
	return infoField(string(b), "mnt_id")
}

// infoField reads one number of a fdinfo.
func infoField(info, name string) (int, error) {
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, errors.New("fdinfo has no " + name)
}
