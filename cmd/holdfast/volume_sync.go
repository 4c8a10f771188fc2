package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/fuse/syncvolume"
)

const syncLong = `Bring all that was written in a mounted volume to the cluster, and return when it
is there: what waits in the background of a volume with durability=node, and what
was written to files that are still open in any volume.

NAME is a volume that is mounted on this machine by "holdfast volume mount". PATH is
a file or folder in a mounted volume, with a slash in it; it needs nothing but the
mount, so it works in a pod, too.`

// syncTimeout is when the command gives up by itself. What it asked for goes on.
const syncTimeout = 10 * time.Minute

func newVolumeSync(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sync NAME|PATH",
		Short:   "Bring all that was written in a mounted volume to the cluster",
		Long:    syncLong,
		Example: "  holdfast volume sync photos\n  holdfast volume sync ./data",
		Args:    exactly("NAME|PATH"),
	}
	timeout := cmd.Flags().Duration("timeout", syncTimeout, "how long to wait")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		if strings.Contains(args[0], "/") {
			return syncvolume.Sync(ctx, args[0])
		}
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Find(ctx, args[0])
			if err != nil {
				return err
			}
			paths, err := c.MountedAt(v)
			if err != nil {
				return err
			}
			if len(paths) == 0 {
				return fmt.Errorf("volume %s is not mounted on this machine by holdfast volume mount: where it is mounted, give the path of the mount", v.Name)
			}
			return syncvolume.Sync(ctx, paths[0])
		})
	}
	return cmd
}
