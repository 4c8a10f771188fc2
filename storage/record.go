package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
)

// This file is the form of a volume's record in the store: JSON with a version.
// What a program does not know it refuses, and so never writes it back without
// what it has not understood. A new field that is left out where it is not used
// can come without a new version: an older program refuses just the records that
// have it.

const (
	// RecordVersion is what this program writes. Records without a version are from
	// before there was one, and are read as this.
	RecordVersion = 1
	// MaxRecord bounds a record, in bytes. It is rewritten with each renewal of a
	// lease; a thousand nodes fit.
	MaxRecord = 256 << 10
)

// EncodeRecord returns the form in the store. It writes nothing that ParseRecord
// would not read.
func EncodeRecord(r Record) ([]byte, error) {
	if err := r.check(r.ID); err != nil {
		return nil, Errorf(Invalid, "%w", err)
	}
	r.Version = RecordVersion
	body, err := json.Marshal(r)
	if err != nil {
		return nil, Errorf(Invalid, "record of volume %q: %w", r.ID, err)
	}
	if len(body) > MaxRecord {
		return nil, Errorf(Full, "record of volume %q: %d bytes with %d leases, at most %d are possible; unstage the volume somewhere", r.ID, len(body), len(r.Leases), MaxRecord)
	}
	return body, nil
}

// ParseRecord reads it.
func ParseRecord(id VolumeID, body []byte) (Record, error) {
	if len(body) > MaxRecord {
		return Record{}, Errorf(Corrupt, "record of volume %q: %d bytes, at most %d are possible", id, len(body), MaxRecord)
	}
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(body, &form); err != nil {
		return Record{}, Errorf(Corrupt, "record of volume %q: %w", id, err)
	}
	if form.Version < 0 || form.Version > RecordVersion {
		return Record{}, Errorf(Unsupported, "record of volume %q has version %d, and this program knows versions up to %d: use the newer Holdfast that wrote it", id, form.Version, RecordVersion)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var r Record
	if err := d.Decode(&r); err != nil {
		return Record{}, Errorf(Unsupported, "record of volume %q has something that this program does not know (%w): use the newer Holdfast that wrote it", id, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Record{}, Errorf(Corrupt, "record of volume %q: something stands behind it", id)
	}
	if err := r.check(id); err != nil {
		return Record{}, err
	}
	r.Version = RecordVersion
	return r, nil
}

// check says whether r can be the record of a volume.
// maxGroups bounds the groups of a record: of a volume that had more, the files of the
// earliest keep theirs.
const maxGroups = 64

// MountedFor notes that a node mounts the volume for a group.
func (r *Record) MountedFor(group uint32) {
	others := slices.DeleteFunc(slices.Clone(r.Groups), func(g uint32) bool { return g == group })
	r.Groups = append(others[max(0, len(others)-maxGroups+1):], group)
}

func (r *Record) check(id VolumeID) error {
	switch {
	case r.ID != id:
		return Errorf(Corrupt, "record of volume %q is the one of %q", id, r.ID)
	case r.Capacity < 0:
		return Errorf(Corrupt, "record of volume %q: capacity %d", id, r.Capacity)
	case r.Access != Shared && r.Access != Single && r.Access != ReadOnlyMode:
		return Errorf(Corrupt, "record of volume %q: access %q: %s, %s or %s are possible", id, r.Access, Shared, Single, ReadOnlyMode)
	case r.Phase != Creating && r.Phase != Ready && r.Phase != Deleting && r.Phase != Archived:
		return Errorf(Corrupt, "record of volume %q: phase %q: %s, %s, %s or %s are possible", id, r.Phase, Creating, Ready, Deleting, Archived)
	case r.OnDelete != "" && r.OnDelete != DeleteData && r.OnDelete != Retain && r.OnDelete != Archive:
		return Errorf(Corrupt, "record of volume %q: onDelete %q: %s, %s or %s are possible", id, r.OnDelete, DeleteData, Retain, Archive)
	case r.Inline != nil && (r.Inline.Node == "" || r.Inline.Pod.UID == "" || r.Access != Single || r.Adopted || r.OnDelete != DeleteData):
		return Errorf(Corrupt, "record of volume %q: it goes with a pod, so it needs the node's name, the pod's UID, access %s, a bucket of its own and onDelete %s", id, Single, DeleteData)
	case r.Static != nil && (!r.Adopted || r.Inline != nil || r.OnDelete != Retain):
		return Errorf(Corrupt, "record of volume %q: a PersistentVolume has brought it in, so it needs a bucket that is adopted, and onDelete %s", id, Retain)
	case r.Prefix != "" && !r.Adopted:
		return Errorf(Corrupt, "record of volume %q: it is the folder %q of a bucket that is said to be its own", id, string(r.Prefix))
	case r.Placement.Check() != nil:
		return Errorf(Corrupt, "record of volume %q: %w", id, r.Placement.Check())
	case r.Prefix.CheckFolder() != nil:
		return Errorf(Corrupt, "record of volume %q: %w", id, r.Prefix.CheckFolder())
	}
	for node, l := range r.Leases {
		if err := l.check(); err != nil {
			return Errorf(Corrupt, "record of volume %q: node %q: %w", id, node, err)
		}
		if l.Epoch > r.Epoch {
			return Errorf(Corrupt, "record of volume %q: node %q has a lease of epoch %d, and the volume is at %d", id, node, l.Epoch, r.Epoch)
		}
	}
	return nil
}

// LogValue keeps secrets out of logs, in whatever form those are.
func (r Record) LogValue() slog.Value { return slog.StringValue(string(r.ID)) }

// LogValue hides the secret.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
