package driver

import (
	"regexp"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is how a volume is to be mounted, by a StorageClass's mountOptions and
// fsType: what has no meaning here is refused, since whoever asks for it relies on it.

// maxContext is what fsconfig(2) takes of a string.
const maxContext = 255

// fileSystem is the one that there is.
const fileSystem = "holdfast"

// mountFlags are those that are allowed, in the order in which they are told. Where a
// pod has the volume ro and noexec hold, nosuid and nodev hold always, and reading
// never updates access times.
var mountFlags = []string{"ro", "rw", "noexec", "nosuid", "nodev", "noatime", "nodiratime", "relatime"}

// flagsOf splits what a capability says: an element may hold several, as in fstab. A
// comma between double quotes divides nothing.
func flagsOf(m *csi.VolumeCapability_MountVolume) []string {
	var all []string
	for _, f := range m.GetMountFlags() {
		quoted, begin := false, 0
		for i, c := range []byte(f) {
			switch {
			case c == '"':
				quoted = !quoted
			case c == ',' && !quoted:
				all, begin = append(all, f[begin:i]), i+1
			}
		}
		all = append(all, f[begin:])
	}
	return all
}

// contextFlag is what the kubelet adds where CSIDriver has seLinuxMount and the node's
// kernel has SELinux: all of the mount is shown with one label, instead of one being
// written to each file.
const contextFlag = "context="

var contextPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+(:[A-Za-z0-9_.,:-]+)?$`)

// contextOf is the SELinux context that a capability asks for, empty when it asks for
// none.
func contextOf(c *csi.VolumeCapability) string {
	for _, f := range flagsOf(c.GetMount()) {
		if value, is := strings.CutPrefix(f, contextFlag); is {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// checkMount says whether a volume can be mounted so. A flag's value may be a secret
// (CSI calls them sensitive), so it is told nobody.
func checkMount(m *csi.VolumeCapability_MountVolume) error {
	if fs := m.GetFsType(); fs != "" && fs != fileSystem {
		return storage.Errorf(storage.Invalid, "fs_type %.64q: a volume is a file system of its own; leave it out, or say %s", fs, fileSystem)
	}
	flags, contexts := flagsOf(m), 0
	for _, f := range flags {
		if slices.Contains(mountFlags, f) {
			continue
		}
		if value, is := strings.CutPrefix(f, contextFlag); is {
			if len(value) > maxContext || !contextPattern.MatchString(strings.Trim(value, `"`)) {
				return storage.Errorf(storage.Invalid, "mount flag context=…: must be an SELinux context, USER:ROLE:TYPE or USER:ROLE:TYPE:RANGE, of at most %d bytes", maxContext)
			}
			if contexts++; contexts > 1 {
				return storage.Errorf(storage.Invalid, "mount flag context=…: it is given twice, and a mount has one")
			}
			continue
		}
		name, _, hasValue := strings.Cut(f, "=")
		if hasValue {
			name += "=…"
		}
		return storage.Errorf(storage.Invalid, "mount flag %.64q is not known: %s and context=… are allowed", name, strings.Join(mountFlags, ", "))
	}
	if slices.Contains(flags, "ro") && slices.Contains(flags, "rw") {
		return storage.Errorf(storage.Invalid, "mount flags ro and rw: one of both is allowed")
	}
	return nil
}

// bindOptions are those that a capability asks for.
func bindOptions(c *csi.VolumeCapability) BindOptions {
	flags := flagsOf(c.GetMount())
	return BindOptions{ReadOnly: slices.Contains(flags, "ro"), NoExec: slices.Contains(flags, "noexec")}
}
