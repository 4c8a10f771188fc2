package cluster

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// This file is the choice of every flag: pure values, no I/O. weed's defaults are
// for a lone server on a trusted network: they listen on all addresses, report to
// the vendor, and reserve 30 GB for each volume.

// The processes, by the names in Status and of their logs.
const (
	masterName = "master"
	filerName  = "filer"
	s3Name     = "s3"
	// volumeRole is what the volume servers have in common: a certificate.
	volumeRole = "volume"
)

func volumeName(i int) string { return "volume" + strconv.Itoa(i+1) }

const (
	// volumeSizeMB: a bucket's volumes grow in steps of a gigabyte.
	volumeSizeMB = 1024
	// maxVolumes is slots, not space: each bucket takes at least one, and the
	// default, 8, or 0, free space by volume size, ends at some dozens of buckets.
	maxVolumes = 10000
	// minFreeSpace is where volume servers stop taking writes. It guards the disk
	// in place of the number of volumes, and leaves the filer's store room.
	minFreeSpace      = "1GiB"
	minFreeSpaceBytes = 1 << 30
	// preStopSeconds is how long a volume server that leaves still serves; on one
	// machine the master hears of it at once.
	preStopSeconds = 1
	// filerGrace: weed's filer takes 15 s to end, by no flag less; one that has
	// lost its master does not end at all.
	filerGrace = 25 * time.Second
	stopGrace  = 10 * time.Second
)

// memoryLimit is GOMEMLIMIT for each role: about twice what it holds under load.
// Without it, a benchmark leaves the gateway with 900 MB.
var memoryLimit = map[string]string{
	masterName: "256MiB",
	volumeRole: "512MiB",
	filerName:  "768MiB",
	s3Name:     "512MiB",
}

// flags of a volume server.
func (p Place) flags() (flags []string) {
	for _, f := range [][2]string{{"-dataCenter=", p.DataCenter}, {"-rack=", p.Rack}, {"-disk=", p.Disk}} {
		if f[1] != "" {
			flags = append(flags, f[0]+f[1])
		}
	}
	return flags
}

// specs returns the processes in the order in which they depend on each other.
func specs(o Options, kek string) []supervise.Spec {
	d, ports := folder(o.Dir), PortPlan(o.PortBase, o.VolumeServers)
	listen := func(p Pair) []string {
		return []string{"-ip=" + o.IP, "-ip.bind=" + o.IP, "-port=" + strconv.Itoa(p.HTTP), "-port.grpc=" + strconv.Itoa(p.GRPC)}
	}
	spec := func(name, role string, p Pair, args ...string) supervise.Spec {
		return supervise.Spec{
			Name: name,
			Path: o.Weed,
			Args: append(append([]string{"-logtostderr=true", role}, listen(p)...), args...),
			Env: []string{
				"HOME=" + d.conf(), "TMPDIR=" + d.tmp(), "GOMEMLIMIT=" + memoryLimit[role],
				"WEED_TLS_CERT_REFRESH_INTERVAL=" + certificateEvery.String(),
			},
			Dir:       d.conf(),
			User:      o.User,
			LogFile:   d.log(name),
			StopGrace: stopGrace,
		}
	}
	master := weedAddress(o.IP, ports.Master)

	all := []supervise.Spec{spec(masterName, "master", ports.Master,
		"-mdir="+d.data(masterName),
		"-peers=none", "-electionTimeout=1s",
		fmt.Sprintf("-volumeSizeLimitMB=%d", volumeSizeMB),
		"-defaultReplication="+o.Replication,
		"-telemetry=false",
	)}
	for i, p := range ports.Volumes {
		volume := spec(volumeName(i), volumeRole, p,
			"-dir="+d.data(volumeName(i)),
			fmt.Sprintf("-max=%d", maxVolumes),
			"-minFreeSpace="+minFreeSpace,
			"-master="+master,
			fmt.Sprintf("-preStopSeconds=%d", preStopSeconds),
		)
		if i < len(o.Places) {
			volume.Args = append(volume.Args, o.Places[i].flags()...)
		}
		all = append(all, volume)
	}
	filer := spec(filerName, "filer", ports.Filer,
		"-master="+master,
		"-defaultStoreDir="+d.data(filerName),
		"-disableHttp",
		"-localSocket="+d.socket(filerName),
	)
	filer.StopGrace = filerGrace
	s3 := spec(s3Name, "s3", ports.S3,
		"-filer="+weedAddress(o.IP, ports.Filer),
		"-port.iceberg=0", "-port.lance=0",
		"-iam.readOnly=true", // users are changed in the filer: storage/seaweed/users.go
		"-config="+filepath.Join(d.conf(), s3ConfigName),
		"-localSocket="+d.socket(s3Name),
	)
	s3.Env = append(s3.Env, "WEED_S3_SSE_KEK="+kek)
	if o.S3TLS {
		cert := pki.FilesIn(o.PKI, gatewayName).Cert
		s3.Args = append(s3.Args, "-cert.file="+cert, "-key.file="+cert)
	}
	return append(all, filer, s3)
}
