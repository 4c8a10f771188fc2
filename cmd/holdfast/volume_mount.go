package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

const mountLong = `Mount a volume on a folder of this machine. A folder that does not exist is made;
its parent must exist.

The mount is remembered: "holdfast down" unmounts it, and the next "holdfast up"
mounts it again, until "holdfast volume unmount" forgets it.`

func newVolumeMount(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "mount NAME DIR",
		Short:   "Mount a volume on a folder",
		Long:    mountLong,
		Example: "  holdfast volume mount photos ~/photos",
		Args:    exactly("NAME", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVolumes(func(c *volumes.Client) error {
				v, err := c.Find(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				already, err := c.Mount(cmd.Context(), v, args[1])
				if err != nil {
					return err
				}
				if already {
					_, err = fmt.Fprintf(a.stderr, "volume %s was mounted at %s already\n", v.Name, args[1])
				}
				return err
			})
		},
	}
}
