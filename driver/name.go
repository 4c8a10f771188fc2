package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file derives every name of a volume from the name that it was asked for
// by: its id, its bucket, the bucket to fall back to, its S3 user. Derived and
// not drawn at random, so that a repeated call finds what the first one made.

const (
	// maxName is CSI's limit of a string.
	maxName = 128
	// maxBucket and maxUser are S3's and IAM's limits.
	maxBucket = 63
	maxUser   = 64
	// userPrefix marks the users that are ours.
	userPrefix = "holdfast-"
	// hashed is the length of "-" and the hash behind a name.
	hashed = 9
)

// checkVolumeName says whether a volume may be asked for by name.
func checkVolumeName(name string) error {
	switch {
	case name == "":
		return storage.Errorf(storage.Invalid, "the volume's name is missing")
	case len(name) > maxName:
		return storage.Errorf(storage.Invalid, "the volume's name has %d bytes: at most %d are allowed", len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return storage.Errorf(storage.Invalid, "the volume's name %q: control characters are not allowed", name)
	}
	return nil
}

// VolumeID returns the id of the volume that is asked for by name: the name
// itself where it can be a bucket, else the nearest that can, with a hash. Ids
// are valid bucket names.
func VolumeID(name string) storage.VolumeID {
	if usable(name) {
		return storage.VolumeID(name)
	}
	return storage.VolumeID(withHash(sanitise(name), name, maxBucket))
}

// checkVolumeID tells ids that were never given out from those that may exist,
// so that nothing strange is asked of the store.
func checkVolumeID(id string) (storage.VolumeID, error) {
	if id == "" {
		return "", storage.Errorf(storage.Invalid, "the volume id is missing")
	}
	if !usable(id) {
		return "", storage.Errorf(storage.NotFound, "volume %q: not found", id)
	}
	return storage.VolumeID(id), nil
}

// bucketOf and otherBucketOf are the bucket of a volume, and the one to take
// when a bucket of that name belongs to somebody else.
func bucketOf(id storage.VolumeID) storage.BucketName { return storage.BucketName(id) }

func otherBucketOf(id storage.VolumeID, name string) storage.BucketName {
	return storage.BucketName(withHash(string(id), "bucket of "+name, maxBucket))
}

// userOf is the S3 user of a new volume; that of an old one stands in its record. A
// long id is cut, behind a character that no id has: what is left must not be the
// user of another volume, whose keys would end or open this bucket.
func userOf(id storage.VolumeID) string {
	user := userPrefix + string(id)
	if len(user) <= maxUser {
		return user
	}
	sum := sha256.Sum256([]byte(id))
	tail := "_" + hex.EncodeToString(sum[:16])
	return user[:maxUser-len(tail)] + tail
}

// reserved are beginnings and ends that S3 keeps for itself.
var (
	reservedPrefixes = []string{"xn--", "sthree-", "amzn-s3-demo-"}
	reservedSuffixes = []string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"}
)

func usable(name string) bool {
	if storage.BucketName(name).Check() != nil || strings.Contains(name, ".-") || strings.Contains(name, "-.") {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	for _, s := range reservedSuffixes {
		if strings.HasSuffix(name, s) {
			return false
		}
	}
	return true
}

var (
	notAllowed = regexp.MustCompile(`[^a-z0-9-]+`)
	manyHyphen = regexp.MustCompile(`-{2,}`)
)

// sanitise keeps what can stay of a name. Dots go too: they break certificates
// of buckets addressed by host name.
func sanitise(name string) string {
	s := notAllowed.ReplaceAllString(strings.ToLower(name), "-")
	s = strings.Trim(manyHyphen.ReplaceAllString(s, "-"), "-")
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(s, strings.TrimRight(p, "-")) {
			s = "v-" + s
			break
		}
	}
	if s == "" {
		s = "volume"
	}
	return s
}

// withHash cuts s so that it has room for a hash of key within limit.
func withHash(s, key string, limit int) string {
	if len(s) > limit-hashed {
		s = strings.TrimRight(s[:limit-hashed], "-.")
	}
	sum := sha256.Sum256([]byte(key))
	return s + "-" + hex.EncodeToString(sum[:4])
}
