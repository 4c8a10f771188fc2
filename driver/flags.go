package driver

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is how a volume is to be mounted, by a StorageClass's mountOptions and
// fsType: what has no meaning here is refused, since whoever asks for it relies on it.

// fileSystem is the one that there is.
const fileSystem = "holdfast"

// mountFlags are those that are allowed, in the order in which they are told. Where a
// pod has the volume ro and noexec hold, nosuid and nodev hold always, and reading
// never updates access times.
var mountFlags = []string{"ro", "rw", "noexec", "nosuid", "nodev", "noatime", "nodiratime", "relatime"}

// flagsOf splits what a capability says: an element may hold several, as in fstab.
func flagsOf(m *csi.VolumeCapability_MountVolume) []string {
	var all []string
	for _, f := range m.GetMountFlags() {
		all = append(all, strings.Split(f, ",")...)
	}
	return all
}

// checkMount says whether a volume can be mounted so. A flag's value may be a secret
// (CSI calls them sensitive), so it is told nobody.
func checkMount(m *csi.VolumeCapability_MountVolume) error {
	if fs := m.GetFsType(); fs != "" && fs != fileSystem {
		return storage.Errorf(storage.Invalid, "fs_type %.64q: a volume is a file system of its own; leave it out, or say %s", fs, fileSystem)
	}
	flags := flagsOf(m)
	for _, f := range flags {
		if slices.Contains(mountFlags, f) {
			continue
		}
		name, _, hasValue := strings.Cut(f, "=")
		if hasValue {
			name += "=…"
		}
		return storage.Errorf(storage.Invalid, "mount flag %.64q is not known: %s are allowed", name, strings.Join(mountFlags, ", "))
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
