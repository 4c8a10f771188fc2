package cluster

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// DefaultPortBase puts S3 on its usual port, 8333.
const DefaultPortBase = 8325

const (
	// fixedPorts are those of the master, two volume servers, the filer and the
	// gateway; volume servers beyond the second come behind them, so that S3 has
	// the same port whatever their number.
	fixedPorts = 10
	// baseStep is how far apart tried bases are.
	baseStep = 20
	maxPort  = 65535
)

// Pair is the two ports of a process.
type Pair struct {
	HTTP, GRPC int
}

// Ports are all ports of a cluster, and it has no others.
type Ports struct {
	Master  Pair
	Volumes []Pair
	Filer   Pair
	S3      Pair
}

// Port is one port by name, such as "volume1 grpc".
type Port struct {
	Name   string
	Number int
}

// PortPlan lays out the ports from base: master +0 and +1, the first two volume
// servers +2 to +5, filer +6 and +7, S3 +8 and +9, further volume servers from
// +10. The even ones are HTTP, the others gRPC.
func PortPlan(base, volumeServers int) Ports {
	pair := func(offset int) Pair { return Pair{HTTP: base + offset, GRPC: base + offset + 1} }
	p := Ports{Master: pair(0), Filer: pair(6), S3: pair(8)}
	for i := range volumeServers {
		if i < 2 {
			p.Volumes = append(p.Volumes, pair(2+2*i))
		} else {
			p.Volumes = append(p.Volumes, pair(fixedPorts+2*(i-2)))
		}
	}
	return p
}

// Named returns all ports with their names.
func (p Ports) Named() []Port {
	var all []Port
	add := func(name string, pair Pair) {
		all = append(all, Port{Name: name + " http", Number: pair.HTTP}, Port{Name: name + " grpc", Number: pair.GRPC})
	}
	add(masterName, p.Master)
	for i, v := range p.Volumes {
		add(volumeName(i), v)
	}
	add(filerName, p.Filer)
	add(s3Name, p.S3)
	return all
}

// FreeBase says whether all ports of the plan can be bound on ip now. The error,
// of kind InUse, names those that cannot.
func FreeBase(ctx context.Context, ip string, base, volumeServers int) error {
	if last := base + fixedPorts + 2*max(0, volumeServers-2); base < 1 || last > maxPort {
		return storage.Errorf(storage.Invalid, "port base %d: the ports %d to %d do not exist", base, base, last)
	}
	var taken []string
	var first error
	for _, p := range PortPlan(base, volumeServers).Named() {
		if err := tryBind(ctx, ip, p.Number); err != nil {
			taken = append(taken, fmt.Sprintf("%d (%s)", p.Number, p.Name))
			if first == nil {
				first = err
			}
		}
	}
	if taken == nil {
		return nil
	}
	return storage.Errorf(storage.InUse, "port %s on %s cannot be used: %w", strings.Join(taken, ", "), ip, first)
}

// NextFreeBase returns the first base from from upwards whose ports are all free.
// Somebody may take one of them before the cluster starts; Start says so then.
func NextFreeBase(ctx context.Context, ip string, from, volumeServers int) (int, error) {
	var last error
	for base := from; base+baseStep <= maxPort; base += baseStep {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if last = FreeBase(ctx, ip, base, volumeServers); last == nil {
			return base, nil
		}
	}
	return 0, storage.Errorf(storage.InUse, "no free ports from %d upwards: %w", from, last)
}

func tryBind(ctx context.Context, ip string, port int) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
