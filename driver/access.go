package driver

import (
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// mode is shorter than the generated name.
type mode = csi.VolumeCapability_AccessMode_Mode

const (
	writer       = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	singleWriter = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	multiWriter  = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	reader       = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	readers      = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	oneOfMany    = csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER
	everyone     = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

// modeAccess is what each CSI mode needs of a volume. MULTI_NODE_SINGLE_WRITER
// becomes Single: which of many nodes is the writer cannot be told, so one node
// has the volume.
//
//nolint:exhaustive // UNKNOWN is not to be had
var modeAccess = map[mode]storage.AccessMode{
	writer:       storage.Single,
	singleWriter: storage.Single,
	multiWriter:  storage.Single,
	oneOfMany:    storage.Single,
	everyone:     storage.Shared,
	reader:       storage.ReadOnlyMode,
	readers:      storage.ReadOnlyMode,
}

// readOnly reports whether a mount with that mode must refuse writes.
func readOnly(m mode) bool { return modeAccess[m] == storage.ReadOnlyMode }

// checkCapability says whether one capability can be had at all.
func checkCapability(c *csi.VolumeCapability) error {
	if c == nil {
		return storage.Errorf(storage.Invalid, "the volume capability is missing")
	}
	if c.GetBlock() != nil {
		return storage.Errorf(storage.Invalid, "block volumes are not possible: a volume is a file system (volumeMode: Filesystem)")
	}
	if c.GetMount() == nil {
		return storage.Errorf(storage.Invalid, "the volume capability has no access type: mount is possible")
	}
	m := c.GetAccessMode().GetMode()
	if _, ok := modeAccess[m]; !ok {
		return storage.Errorf(storage.Invalid, "access mode %s is not known", m)
	}
	return checkMount(c.GetMount())
}

// accessOf returns the narrowest access that serves all the capabilities.
// Writers of one node beside readers of many need Shared.
func accessOf(caps []*csi.VolumeCapability) (storage.AccessMode, error) {
	if len(caps) == 0 {
		return "", storage.Errorf(storage.Invalid, "the volume capabilities are missing")
	}
	single, manyReaders, shared := false, false, false
	for _, c := range caps {
		if err := checkCapability(c); err != nil {
			return "", err
		}
		m := c.GetAccessMode().GetMode()
		switch modeAccess[m] {
		case storage.Shared:
			shared = true
		case storage.Single:
			single = true
		case storage.ReadOnlyMode:
			manyReaders = manyReaders || m == readers
		}
	}
	switch {
	case shared, single && manyReaders:
		return storage.Shared, nil
	case single:
		return storage.Single, nil
	}
	return storage.ReadOnlyMode, nil
}

// serves reports whether a volume with access a can be used in mode m.
func serves(a storage.AccessMode, m mode) bool {
	switch a {
	case storage.Shared:
		return true
	case storage.Single:
		return m != everyone && m != readers
	case storage.ReadOnlyMode:
		return readOnly(m)
	}
	return false
}

// servesRecord says whether a volume that is there can be used in mode m.
func servesRecord(r *storage.Record, m mode) error {
	if !serves(r.Access, m) {
		return storage.Errorf(storage.Invalid, "volume %s has access %s, which does not serve %s", r.ID, r.Access, m)
	}
	s, err := parseParams(r.Parameters)
	if err != nil {
		return storage.Errorf(storage.Corrupt, "record of volume %s: %w", r.ID, err)
	}
	return s.serves(r.Access, m)
}
