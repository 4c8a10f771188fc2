package driver

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file knows the parameters of drivers that people come from, so that their
// StorageClasses work or say why not.

const (
	seaweedfsCSI = "seaweedfs-csi-driver"
	k8sCSIS3     = "k8s-csi-s3"
	later        = "a coming version"

	// pathName is seaweedfs-csi-driver's way to name a bucket and a folder at once.
	pathName = "path"
)

// cacheNames are seaweedfs-csi-driver's for cacheSize, in MiB.
var cacheNames = []string{"cacheCapacityMB", "cacheSizeMB"}

// foreignParameter is a parameter that has no effect here: accepted when it asks
// for what is so anyway, else refused with the reason.
type foreignParameter struct {
	names []string
	// of is the driver that has it.
	of string
	// accepted says, for people, which values are; "" for none.
	accepted string
	reason   string
	// accepts is nil when no value is.
	accepts func(value string, s settings) bool
}

func (f foreignParameter) suits(value string, s settings) bool {
	return f.accepts != nil && f.accepts(value, s)
}

func oneOf(values ...string) func(string, settings) bool {
	return func(value string, _ settings) bool { return slices.Contains(values, value) }
}

var foreign = []foreignParameter{
	{
		names: []string{"mounter"}, of: k8sCSIS3, accepted: "geesefs, s3fs, rclone, goofys", accepts: oneOf("geesefs", "s3fs", "rclone", "goofys"),
		reason: "there is one mounter, Holdfast's own; leave the parameter out",
	},
	{
		names: []string{"options"}, of: k8sCSIS3, accepted: "empty", accepts: oneOf(""),
		reason: "options of other mounters have no effect here; uid, gid, fileMode and dirMode are parameters of their own",
	},
	{
		names: []string{"usePrefix"}, of: "csi-s3", accepted: "true with prefix, false without",
		accepts: func(v string, s settings) bool {
			return v == "true" && s.prefix != "" || v == "false" && s.prefix == ""
		},
		reason: "whether a volume is a folder is said by prefix alone: true goes with it, false goes without it",
	},
	{
		names: []string{"usePathStyle"}, of: "S3 drivers", accepted: "true", accepts: oneOf("true"),
		reason: "buckets are addressed by path: only true is possible",
	},
	{
		names: []string{"endpoint", "region"}, of: "S3 drivers",
		reason: "volumes are on the cluster that the controller was started with",
	},
	{
		names: []string{"collection"}, of: seaweedfsCSI, accepted: "the same as bucketName",
		accepts: func(v string, s settings) bool { return s.bucket != "" && v == string(s.bucket) },
		reason:  "a bucket is a collection of its own, with its name: S3 and quotas stand on that; leave the parameter out",
	},
	{
		names: []string{"parentDir"}, of: seaweedfsCSI, accepted: "/buckets", accepts: oneOf("/buckets", "/buckets/"),
		reason: "volumes are buckets, which lie in /buckets",
	},
	{
		names: []string{"ttl"}, of: seaweedfsCSI, accepted: "empty, 0", accepts: oneOf("", "0"),
		reason: "files would vanish by parts: SeaweedFS removes each chunk that long after it was written, and a file that was changed meanwhile stays, without its older parts; leave the parameter out, and remove what is old by its time stamp",
	},
	{
		names: []string{"dataLocality"}, of: seaweedfsCSI, accepted: "none", accepts: oneOf("none", ""),
		reason: "where data is written does not follow the node: only none is possible",
	},
	{
		names: []string{"cacheDir"}, of: seaweedfsCSI,
		reason: "the chunk cache is one for all volumes of a node: its folder is set where the mounter is started (holdfast-mount serve --cache-dir)",
	},
	{
		names: []string{"concurrentWriters", "concurrentReaders", "chunkSizeLimitMB", "readRetryTime"}, of: seaweedfsCSI,
		reason: "uploads and reads are bounded by bytes and deadlines for the node as a whole; leave the parameter out",
	},
	{
		names: []string{"cacheMetaTtlSec", "metadataFlushSeconds"}, of: seaweedfsCSI,
		reason: "names and attributes follow the store's changes, not the clock; leave the parameter out",
	},
	{
		names: []string{"writebackCache", "dlm"}, of: seaweedfsCSI, accepted: "false", accepts: oneOf("false"),
		reason: "it would break what a volume promises (SEMANTICS.md): only false is possible",
	},
	{
		names: []string{"volumeServerAccess"}, of: seaweedfsCSI, accepted: "direct", accepts: oneOf("direct"),
		reason: "chunks go straight to and from the volume servers: only direct is possible",
	},
	{
		names: []string{"uidMap", "gidMap", "map.uid", "map.gid", "umask"}, of: seaweedfsCSI,
		reason: "owners and modes are kept as programs set them; what is made over S3 is shown by uid, gid, fileMode and dirMode",
	},
}

func foreignOf(name string) (foreignParameter, bool) {
	i := slices.IndexFunc(foreign, func(f foreignParameter) bool { return slices.Contains(f.names, name) })
	if i < 0 {
		return foreignParameter{}, false
	}
	return foreign[i], true
}

// mebibytes is a cacheSize of that many MiB.
func mebibytes(value string) string {
	if n, err := strconv.ParseUint(value, 10, 32); err == nil && n > 0 {
		return value + "Mi"
	}
	return value
}

// splitPath takes a path such as /buckets/photos/2024 apart.
func splitPath(value string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(path.Clean(value), "/buckets/")
	if !ok {
		return "", "", storage.Errorf(storage.Invalid, "parameter path=%q: a volume is a bucket or a folder of one; /buckets/NAME and /buckets/NAME/FOLDER are possible, or bucketName and prefix", value)
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	return bucket, prefix, nil
}
