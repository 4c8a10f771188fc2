package storage

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// BucketName is the name of an S3 bucket.
type BucketName string

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Check says whether b can be a bucket: 3 to 63 lower-case letters, digits, dots
// and hyphens, a letter or a digit at both ends, no two dots in a row.
func (b BucketName) Check() error {
	if !bucketPattern.MatchString(string(b)) || strings.Contains(string(b), "..") {
		return Errorf(Invalid, "bucket name %q: 3 to 63 lower-case letters, digits, dots and hyphens are allowed, with a letter or a digit at both ends", string(b))
	}
	return nil
}

// VolumeID is the handle of a volume, as the CSI calls carry it. It is the name
// of the volume's record.
type VolumeID string

// Keys are what an S3 client signs with. Secret never stands in a log: String
// and the like leave it out. Only encoding/json writes it, for the record.
type Keys struct {
	Access string `json:"access"`
	Secret string `json:"secret"`
}

// String hides the secret.
func (k Keys) String() string { return fmt.Sprintf("{access %s}", k.Access) }

// GoString hides the secret.
func (k Keys) GoString() string { return k.String() }

// Buckets makes and removes S3 buckets.
type Buckets interface {
	// CreateBucket makes an empty bucket. Exists when it is there already,
	// whoever made it.
	CreateBucket(ctx context.Context, b BucketName) error
	// BucketExists reports whether there is such a bucket.
	BucketExists(ctx context.Context, b BucketName) (bool, error)
	// BucketEmpty reports whether the bucket holds no object, no old version and
	// no unfinished upload. NotFound when it is missing. With it a repeated
	// creation tells the bucket that it made before a crash from another's data.
	BucketEmpty(ctx context.Context, b BucketName) (bool, error)
	// FolderEmpty reports whether no object lies in a folder of the bucket: true
	// for a folder that is missing too. NotFound when the bucket is.
	FolderEmpty(ctx context.Context, b BucketName, folder Path) (bool, error)
	// DeleteBucket removes the bucket with everything in it. A missing one is
	// fine.
	DeleteBucket(ctx context.Context, b BucketName) error
}

// Access makes and revokes the right to use one bucket.
type Access interface {
	// Grant makes a user that may read, write, list and delete the objects of b
	// below the folder prefix (all of them when it is empty) and nothing else, and
	// returns a new key pair for it. Called again for the same user it replaces the
	// keys.
	Grant(ctx context.Context, user string, b BucketName, prefix Path) (Keys, error)
	// AddKeys makes one more key pair for a user that Grant made; those that it has
	// go on working. NotFound when there is no such user.
	AddKeys(ctx context.Context, user string) (Keys, error)
	// ListKeys returns the user's access keys, those that somebody else gave it among
	// them. A missing user has none.
	ListKeys(ctx context.Context, user string) ([]string, error)
	// EndKeys ends these access keys of the user. One that is gone is fine.
	EndKeys(ctx context.Context, user string, access []string) error
	// Check says what of the user is not as Grant makes it, its keys aside: it is gone, or
	// may do something else. "" when all is well.
	Check(ctx context.Context, user string, b BucketName, prefix Path) (flaw string, err error)
	// Restore makes that so again and leaves the keys that are there. One that is gone
	// stays gone: somebody may have ended it for a reason.
	Restore(ctx context.Context, user string, b BucketName, prefix Path) error
	// Revoke removes the user and every key that it has. A missing one is fine.
	Revoke(ctx context.Context, user string) error
}

// Record is what is known of a volume: the truth that outlives every process.
type Record struct {
	// Version of the record's form: RecordVersion.
	Version int `json:"version"`
	// ID and Name: Name is the CSI name that the volume was asked for by.
	ID   VolumeID `json:"id"`
	Name string   `json:"name"`
	// Bucket that holds the volume, and the folder in it that is the volume's
	// root; the whole bucket when empty.
	Bucket BucketName `json:"bucket"`
	Prefix Path       `json:"prefix,omitempty"`
	// Adopted says that the bucket is not the volume's own: it was there before, or
	// others have folders in it. It is never deleted.
	Adopted bool `json:"adopted,omitempty"`
	// OnDelete is what a deletion of the volume does.
	OnDelete OnDelete `json:"onDelete,omitempty"`
	// Capacity in bytes.
	Capacity int64 `json:"capacity"`
	// Access is the mode asked for: "shared", "single" or "read-only".
	Access AccessMode `json:"access"`
	// Placement is what the rule for the content says, where the volume has one.
	Placement Placement `json:"placement,omitzero"`
	// Parameters of the StorageClass, as given.
	Parameters map[string]string `json:"parameters,omitempty"`
	// User and Keys for S3.
	User string `json:"user"`
	Keys Keys   `json:"keys"`
	// Retired are keys that a rotation replaced and that work a while longer.
	Retired []RetiredKey `json:"retired,omitempty"`
	// Rotation is there while keys are being replaced.
	Rotation *Rotation `json:"rotation,omitempty"`
	// Phase: a volume that is not Ready is half-made or half-deleted; repeating
	// the operation finishes it.
	Phase Phase `json:"phase"`
	// Created is when the record was written first.
	Created time.Time `json:"created"`
	// Epoch counts the nodes that had a volume of one node, one after the other, and
	// Owner is the last of them.
	Epoch uint64 `json:"epoch,omitempty"`
	Owner string `json:"owner,omitempty"`
	// Inline is there for a volume that goes with a pod.
	Inline *Inline `json:"inline,omitempty"`
	// Static is there for a volume that a PersistentVolume has brought in.
	Static *Static `json:"static,omitempty"`
	// Groups are those that it was mounted for (volume_mount_group), the latest last.
	Groups []uint32 `json:"groups,omitempty"`
	// Leases by node: a volume with a live one is in use.
	Leases map[string]Lease `json:"leases,omitempty"`

	// Origin is the adapter's own form, as in Entry.
	Origin any `json:"-"`
}

// AccessMode is who may use a volume at a time.
type AccessMode string

// The access modes, by the words of the command line.
const (
	Shared       AccessMode = "shared"
	Single       AccessMode = "single"
	ReadOnlyMode AccessMode = "read-only"
)

// Phase is how far a volume's life has come.
type Phase string

// The phases.
const (
	Creating Phase = "creating"
	Ready    Phase = "ready"
	Deleting Phase = "deleting"
	// Archived: deleted, with onDelete archive. The record and the data stay, the
	// keys are ended; making the volume again brings it back.
	Archived Phase = "archived"
)

// OnDelete is what becomes of a volume's data when it is deleted.
type OnDelete string

// What a deletion does. The empty one is DeleteData.
const (
	// DeleteData removes the bucket with all that is in it.
	DeleteData OnDelete = "delete"
	// Retain leaves the bucket, and forgets the volume.
	Retain OnDelete = "retain"
	// Archive leaves the bucket and the volume's record.
	Archive OnDelete = "archive"
)

// Records keeps the volumes' records.
type Records interface {
	// GetRecord returns the record of a volume, NotFound when there is none and
	// Unsupported when it is of a newer version.
	GetRecord(ctx context.Context, id VolumeID) (Record, error)
	// ListRecords returns up to limit records with ids greater than after, in
	// ascending order.
	ListRecords(ctx context.Context, after VolumeID, limit int) ([]Record, error)
	// CreateRecord writes a new one: Exists when the id is taken.
	CreateRecord(ctx context.Context, r Record) (Record, error)
	// UpdateRecord replaces it, provided that it is as r.Origin remembers it:
	// Changed when it is not.
	UpdateRecord(ctx context.Context, r Record) (Record, error)
	// DeleteRecord removes it. A missing one is fine.
	DeleteRecord(ctx context.Context, id VolumeID) error
}

// Capacity measures the store.
type Capacity interface {
	// Space returns what the whole store can take, and what is left, of content that is
	// stored as often as p has it: its disks and data centers are not told apart, as
	// Topology.Free does.
	Space(ctx context.Context, p Placement) (Space, error)
}
