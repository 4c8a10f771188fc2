package cluster

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

const (
	// defaultVolumeServers: with two, one can be away and writes go on.
	defaultVolumeServers = 2
	// maxVolumeServers is far above what one machine has use for.
	maxVolumeServers = 16
	// defaultStartTimeout is for a cold disk with a thousand volumes; a new
	// cluster answers in two seconds.
	defaultStartTimeout = time.Minute
	// maxSocketPath is sun_path without its final NUL.
	maxSocketPath = 107
)

// Options of a cluster. Dir, Weed and AdminKeys are needed.
type Options struct {
	// Dir holds all of it: data, configuration, logs. Absolute. It is made when
	// missing and must otherwise be empty or a cluster's own.
	Dir string
	// Weed is the binary, see FindWeed. Absolute.
	Weed string
	// IP is the IPv4 address that everything listens on. Empty means 127.0.0.1.
	IP string
	// PortBase is the first port, see PortPlan. 0 means DefaultPortBase.
	PortBase int
	// VolumeServers is their number. 0 means 2. It may grow later, not shrink.
	VolumeServers int
	// Places are where the volume servers say that they are, one for each in turn; those
	// without one are in SeaweedFS's usual place. On one machine it is for tests.
	Places []Place
	// Replication is SeaweedFS's, "00N" for N further copies on other volume
	// servers. Empty means "000". With all of N+1 volume servers needed for each
	// write, one more than that should run.
	Replication string
	// User runs the processes; only root can set it. nil keeps our own.
	User *supervise.User
	// AdminKeys are the keys of the one S3 identity that may do all.
	AdminKeys storage.Keys
	// PKI is the folder of the cluster's certificate authority, absolute, see package
	// pki. It is made when missing, and Clients get their certificates there. Empty
	// runs an open cluster, without TLS: whoever reaches its ports may do all.
	PKI     string
	Clients []Client
	// S3TLS has the gateway speak TLS, with a certificate of the same authority. It
	// needs PKI.
	S3TLS bool
	// StartTimeout bounds Start. 0 means a minute.
	StartTimeout time.Duration
	// Logger hears of deaths and restarts. nil is silent.
	Logger *slog.Logger
	// Progress hears what happens, in a user's words, never two at a time. nil is
	// silent.
	Progress func(string)
}

// Place is where a volume server says that it is, and on what kind of disk. What is
// empty is SeaweedFS's own.
type Place struct{ DataCenter, Rack, Disk string }

// Client is a holder of a certificate beside weed's own processes: it may speak
// to the filer and the volume servers.
type Client struct {
	// Name is that of its file, see pki.Files.
	Name string
	// Master says that it may speak to the master as well.
	Master bool
	// Owner of the file; nil for us.
	Owner *pki.Owner
}

var clientPattern = regexp.MustCompile(`^[a-z]+$`)

var replicationPattern = regexp.MustCompile(`^00[0-9]$`)

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	o = o.withDefaults()
	invalid := func(format string, args ...any) error { return storage.Errorf(storage.Invalid, format, args...) }
	ip, err := netip.ParseAddr(o.IP)
	switch {
	case !filepath.IsAbs(o.Dir) || filepath.Clean(o.Dir) == "/":
		return invalid("cluster folder %q: must be an absolute path", o.Dir)
	case !filepath.IsAbs(o.Weed):
		return invalid("weed %q: must be an absolute path", o.Weed)
	case err != nil || !ip.Is4() || ip.IsUnspecified():
		return invalid("IP %q: must be one IPv4 address of this machine", o.IP)
	case o.VolumeServers < 1 || o.VolumeServers > maxVolumeServers:
		return invalid("%d volume servers: 1 to %d are possible", o.VolumeServers, maxVolumeServers)
	case len(o.Places) > o.VolumeServers:
		return invalid("%d places for %d volume servers", len(o.Places), o.VolumeServers)
	case !replicationPattern.MatchString(o.Replication):
		return invalid("replication %q: must be 00N, N further copies on other volume servers", o.Replication)
	case int(o.Replication[2]-'0') >= o.VolumeServers:
		return invalid("replication %q needs more than %d volume servers", o.Replication, o.VolumeServers)
	case o.AdminKeys.Access == "" || o.AdminKeys.Secret == "":
		return invalid("the admin keys are missing")
	case o.PortBase < 1 || o.PortBase+fixedPorts+2*o.VolumeServers > maxPort:
		return invalid("port base %d: leaves no room for the ports", o.PortBase)
	}
	if o.PKI == "" && (o.S3TLS || len(o.Clients) > 0) {
		return invalid("certificates are asked for without a folder for their authority")
	}
	if o.PKI != "" && !filepath.IsAbs(o.PKI) {
		return invalid("folder of certificates %q: must be an absolute path", o.PKI)
	}
	taken := map[string]bool{}
	for _, l := range o.weedLeaves() {
		taken[l.Name] = true
	}
	for _, c := range o.Clients {
		if !clientPattern.MatchString(c.Name) || taken[c.Name] {
			return invalid("client %q: must be a word of small letters that names nobody else", c.Name)
		}
		taken[c.Name] = true
	}
	for _, socket := range []string{folder(o.Dir).socket(filerName), folder(o.Dir).socket(s3Name)} {
		if len(socket) > maxSocketPath {
			return invalid("cluster folder %q is %d bytes too long: %s would be longer than a unix socket's path can be", o.Dir, len(socket)-maxSocketPath, socket)
		}
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.IP == "" {
		o.IP = "127.0.0.1"
	}
	if o.PortBase == 0 {
		o.PortBase = DefaultPortBase
	}
	if o.VolumeServers == 0 {
		o.VolumeServers = defaultVolumeServers
	}
	if o.Replication == "" {
		o.Replication = "000"
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = defaultStartTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}
