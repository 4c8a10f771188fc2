package stack

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

const (
	mounterName = "mounter"
	// mounterStop is for what it still has to write.
	mounterStop = 30 * time.Second
)

// startMounter starts the mounter unless it runs.
func startMounter(ctx context.Context, o Options, mount string, c *cluster.Cluster) (process.ID, error) {
	if id, ok := noted(o.Dir, mounterName); ok {
		return id, nil
	}
	d := detached{name: mounterName, path: mount, args: []string{
		"serve",
		"--run-dir", o.Dir.Run(),
		"--state-dir", o.Dir.Mounter(),
		"--filer", c.Endpoints().FilerGRPC,
		// What is put into a bucket over S3 belongs to whoever runs this.
		"--object-uid", strconv.Itoa(os.Getuid()), "--object-gid", strconv.Itoa(os.Getgid()),
	}}
	d.args = append(d.args, certificate(c, mounterName)...)
	if o.Deadline != "" {
		d.args = append(d.args, "--deadline", o.Deadline)
	}
	if os.Getuid() == 0 {
		account := o.accounts().Mounter
		d.user = &account
	}
	return d.start(ctx, o.Dir)
}

// stopMounter ends the mounter. Without one there is nothing to do.
func stopMounter(ctx context.Context, dir state.Dir) error {
	id, ok := noted(dir, mounterName)
	if !ok {
		return forgetPID(dir, mounterName)
	}
	if err := end(ctx, id, mounterStop); err != nil {
		return err
	}
	return forgetPID(dir, mounterName)
}
