package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

func newVolumeDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"rm"},
		Short:   "Delete a volume, its bucket and everything in it",
		Example: "  holdfast volume delete photos\n  holdfast volume delete photos --yes   # in a script",
		Args:    exactly("NAME"),
	}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			question := fmt.Sprintf("Delete volume %s and everything in its bucket %s?", v.Name, v.Bucket)
			if err := a.confirm(cmd.Context(), *yes, question); err != nil {
				return err
			}
			return c.Delete(cmd.Context(), v)
		})
	}
	return cmd
}
