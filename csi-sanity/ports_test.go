package csisanity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

// Bases lie above those that the tests of the cluster take and below the range
// that Linux gives outgoing connections from.
const (
	firstBase = 31100
	lastBase  = 32700
	baseStep  = 20
	basePorts = 10
)

// reserveBase finds ten free ports, and keeps other runs of these tests from
// taking them until release: by the name of an abstract socket, which vanishes
// with its process.
func reserveBase(ctx context.Context) (base int, release func(), err error) {
	slots := (lastBase - firstBase) / baseStep
	for i := range slots {
		base := firstBase + (os.Getpid()+i)%slots*baseStep
		l, err := listen(ctx, "unix", fmt.Sprintf("@holdfast-csi-sanity-%d", base))
		if err != nil {
			continue
		}
		if portsFree(ctx, base) == nil {
			return base, func() { _ = l.Close() }, nil
		}
		_ = l.Close()
	}
	return 0, nil, errors.New("no free ports")
}

// portsFree says whether the ports of a base can be bound.
func portsFree(ctx context.Context, base int) error {
	for port := base; port < base+basePorts; port++ {
		l, err := listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		_ = l.Close()
	}
	return nil
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}
