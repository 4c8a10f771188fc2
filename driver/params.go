package driver

import (
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the one table of parameters: parsing, help and PARAMETERS.md are
// made from it. Names that other drivers use for the same, or for what cannot be
// had here, are in params_foreign.go.

// parameter is one row.
type parameter struct {
	name string
	// aliases are other drivers' names for the same.
	aliases []string
	// values says what is allowed, usual what holds without the parameter, text
	// what it does. For people.
	values, usual, text string
	// same is a value that says the same as none, and is not kept: volumes that were
	// made with it before there was another one are still what is asked for.
	same string
	// set judges a value and takes it.
	set func(s *settings, value string) error
}

// settings are what the parameters of a volume say.
type settings struct {
	// kept are the parameters by their own names, as given: what a repeated call is
	// compared with.
	kept map[string]string
	// bucket and prefix may hold ${…}; empty when not given.
	bucket, prefix template
	// onDelete is empty when not given.
	onDelete  storage.OnDelete
	objects   Objects
	placement storage.Placement
	// cacheSize is nil when not given.
	cacheSize *int64
	// durability is what fsync means; empty is that the cluster has the data.
	durability Durability
	// commitDelay is zero when not given.
	commitDelay time.Duration
}

// Objects is how a mount shows what was made over S3, which has neither owner nor
// mode. What is nil is the mounter's own.
type Objects struct {
	UID      *uint32 `json:"uid,omitempty"`
	GID      *uint32 `json:"gid,omitempty"`
	FileMode *uint32 `json:"fileMode,omitempty"`
	DirMode  *uint32 `json:"dirMode,omitempty"`
}

const templates = "${pvc.name}, ${pvc.namespace} and ${pv.name}"

// parameters is the table, in the order of the documents.
var parameters = []parameter{
	{
		name: "bucketName", aliases: []string{"bucket"},
		values: "3 to 63 lower-case letters, digits, dots and hyphens; " + templates + " in it are replaced",
		usual:  "the volume's own name, or one derived from it",
		text: "The bucket of the volume. One that does not exist is made, and belongs to the volume. " +
			"One that exists is used as it is (adopted) if the name holds no ${…} and onDelete is retain or archive; otherwise the volume is refused. " +
			"A bucket that belongs to another volume is never used.",
		set: func(s *settings, value string) (err error) {
			s.bucket, err = parseTemplate(value)
			return err
		},
	},
	{
		name:   "prefix",
		values: "a folder such as team/data: letters, digits and -_.=@+, single slashes between names; " + templates + " in it are replaced",
		usual:  "none: the volume is the whole bucket",
		text: "A folder of bucketName is the root of the volume. Its keys open this folder alone. Browsers' forms (POST) are not possible there. The bucket is made if it does not exist, and belongs to nobody: several volumes may have folders in it, and it is never deleted. " +
			"If either name holds ${…}, the folder has to be empty and no other volume's. Needs bucketName, and onDelete retain or archive.",
		set: func(s *settings, value string) (err error) {
			s.prefix, err = parseTemplate(value)
			return err
		},
	},
	{
		name:   "onDelete",
		values: "delete, retain or archive",
		usual:  "delete",
		text: "What a deletion of the volume does. delete: the bucket goes with all that is in it. retain: the bucket stays, the volume and its keys go. " +
			"archive: bucket and volume stay, the keys are ended, the volume is listed as archived; making it again with the same name and parameters brings it back with new keys, and deleting it again once its bucket is gone removes it. " +
			"An adopted bucket and a folder are never deleted: with them delete is refused.",
		set: func(s *settings, value string) error {
			switch o := storage.OnDelete(value); o {
			case storage.DeleteData, storage.Retain, storage.Archive:
				s.onDelete = o
				return nil
			}
			return errValue
		},
	},
	{
		name:   "cacheSize",
		values: "0, or 16Mi and more (512Mi, 10Gi)",
		usual:  "all of the node's cache",
		text: "What the volume may take of each node's chunk cache on the disk. A volume that has it all makes room among its own content, what was not read again first. " +
			"0 keeps nothing of the volume on the node's disk but what waits to be committed. The cache as a whole is bounded where the mounter is started (--cache-size).",
		set: func(s *settings, value string) error { return setCacheSize(&s.cacheSize, value) },
	},
	{
		name: "uid", values: "a number from 0 to 4294967294", usual: "0, or what the mounter was started with (--object-uid)",
		text: "The owner that files and folders made over S3 are shown with.",
		set:  func(s *settings, value string) error { return setID(&s.objects.UID, value) },
	},
	{
		name: "gid", values: "a number from 0 to 4294967294", usual: "0, or what the mounter was started with (--object-gid)",
		text: "The group that files and folders made over S3 are shown with.",
		set:  func(s *settings, value string) error { return setID(&s.objects.GID, value) },
	},
	{
		name: "fileMode", values: "an octal number from 0001 to 0777", usual: "0644",
		text: "The permissions that files made over S3 are shown with.",
		set:  func(s *settings, value string) error { return setMode(&s.objects.FileMode, value) },
	},
	{
		name: "dirMode", values: "an octal number from 0001 to 0777", usual: "0755",
		text: "The permissions that folders made over S3 are shown with. The root of a volume is 0777 until somebody changes it.",
		set:  func(s *settings, value string) error { return setMode(&s.objects.DirMode, value) },
	},
	{
		name:   "replication",
		values: "three digits such as 001, at most 255: further copies of each chunk in other data centers, in other racks, on other servers of the rack",
		usual:  "as a rule above says, or the cluster (000 in the bundled one)",
		text: "How often content is stored. The servers for it must be there when the volume is made: with two in one rack, 000 and 001 are. A write is done when all copies are: while one of the servers is away and there is none in its place, nothing can be written, so have one more than there are copies. " +
			"The volume's size and what it holds count one copy; each takes room in the cluster.",
		set: func(s *settings, value string) error {
			s.placement.Replication = value
			if value == "" || s.placement.Check() != nil {
				return errValue
			}
			return nil
		},
	},
	{
		name: "diskType", aliases: []string{"disk"},
		values: "hdd, ssd, or another kind that volume servers of the cluster were started with",
		usual:  "as a rule above says, or the cluster (hdd in the bundled one)",
		text:   "On which kind of disks content is stored. A volume server must have such disks, with room, when the volume is made.",
		set: func(s *settings, value string) error {
			s.placement.DiskType = strings.ToLower(value)
			return given(value)
		},
	},
	{
		name:   "dataCenter",
		values: "the name of a data center that volume servers of the cluster were started with",
		usual:  "any, or as a rule above says",
		text:   "Where content is stored first; further copies are where replication says. While no server there can take anything, SeaweedFS stores it elsewhere.",
		set: func(s *settings, value string) error {
			s.placement.DataCenter = value
			return given(value)
		},
	},
	durabilityParameter,
	commitDelayParameter,
}

// given refuses an empty value.
func given(value string) error {
	if value == "" {
		return errValue
	}
	return nil
}

// minCacheSize holds a few blocks of 1 MiB, so that one reader does not push out
// what it is about to read.
const minCacheSize = 16 << 20

func setCacheSize(to **int64, value string) error {
	if value == "0" {
		*to = new(int64)
		return nil
	}
	n, err := size.Parse(value)
	if err != nil || n < minCacheSize {
		return errValue
	}
	bytes := int64(n)
	*to = &bytes
	return nil
}

// errValue is turned into a message that says what is allowed.
var errValue = storage.Errorf(storage.Invalid, "not allowed")

func setID(to **uint32, value string) error {
	// The highest number means "no change" to chown(2).
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 1<<32-1 {
		return errValue
	}
	id := uint32(n)
	*to = &id
	return nil
}

func setMode(to **uint32, value string) error {
	n, err := strconv.ParseUint(value, 8, 32)
	if err != nil || n < 1 || n > 0o777 {
		return errValue
	}
	m := uint32(n)
	*to = &m
	return nil
}
