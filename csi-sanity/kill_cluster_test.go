package csisanity

import (
	"context"
	"testing"
)

// TestKillCluster kills the servers under the load: a volume server, the master and
// the filer. The supervisor starts them again; calls wait and go on, and what was
// flushed is there.
func TestKillCluster(t *testing.T) {
	needSQLite(t)
	in := startState(t)
	v := in.create(t, volumeName(t))
	l := newLoad(t, v, v.mount(t))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.start(ctx, stop)
	for _, name := range []string{"volume1", "filer", "volume2", "master", "filer"} {
		if err := l.killComponent(ctx, name); err != nil {
			if ctx.Err() == nil { // else the load has failed
				l.fail(err)
			}
			break
		}
	}
	stop()
	wait()
	l.verify()
	t.Logf("seed %d: %d operations in %v, longest stall %v", l.seed, l.done.Load(), l.age(), l.longest())
}
