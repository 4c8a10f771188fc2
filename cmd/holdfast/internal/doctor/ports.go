package doctor

import (
	"context"
	"fmt"

	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// Ports looks at whether the ports from base can be had. With running they are
// ours.
func Ports(ip string, base, volumeServers int, running bool) Check {
	return func(ctx context.Context) Finding {
		const name = "ports"
		if running {
			return found(name, fmt.Sprintf("in use from %d by the installation that runs", base))
		}
		if err := cluster.FreeBase(ctx, ip, base, volumeServers); err != nil {
			return Finding{
				Name: name, Detail: err.Error(),
				Mend: "nothing need be done: `holdfast up` moves to free ports; or choose with --port-base",
			}
		}
		return found(name, fmt.Sprintf("free from %d", base))
	}
}
