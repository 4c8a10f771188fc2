package main

import (
	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

func newVolumeUnmount(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "unmount DIR",
		Aliases: []string{"umount"},
		Short:   "Unmount a volume and forget the mount",
		Example: "  holdfast volume unmount ~/photos",
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVolumes(func(c *volumes.Client) error {
				_, err := c.Unmount(cmd.Context(), args[0])
				return err
			})
		},
	}
}
