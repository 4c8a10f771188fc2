package stack

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// choosePorts decides on the first port and remembers it. It returns what there
// is to say about it. A port that was asked for is not moved.
func (o Options) choosePorts(ctx context.Context) (base int, say string, err error) {
	config, err := o.Dir.Config()
	if err != nil {
		return 0, "", err
	}
	wanted := config.PortBase
	if wanted == 0 {
		wanted = cluster.DefaultPortBase
	}
	if o.PortBase != 0 {
		wanted = o.PortBase
	}
	base = wanted
	if taken := cluster.FreeBase(ctx, IP, wanted, VolumeServers); taken != nil {
		if o.PortBase != 0 || !storage.Is(taken, storage.InUse) {
			return 0, "", taken
		}
		if base, err = cluster.NextFreeBase(ctx, IP, wanted, VolumeServers); err != nil {
			return 0, "", err
		}
		say = fmt.Sprintf("%v; the ports from %d are used instead, now and from now on", taken, base)
	}
	if base == config.PortBase {
		return base, say, nil
	}
	config.PortBase = base
	return base, say, o.Dir.SaveConfig(config)
}

// chooseS3TLS decides whether S3 speaks TLS and remembers it.
func (o Options) chooseS3TLS() (bool, error) {
	config, err := o.Dir.Config()
	if err != nil || o.S3TLS == nil || *o.S3TLS == config.S3TLS {
		return config.S3TLS, err
	}
	config.S3TLS = *o.S3TLS
	return config.S3TLS, o.Dir.SaveConfig(config)
}
