package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/driver/size"
)

func newVolumeExpand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "expand NAME --size SIZE",
		Aliases: []string{"resize"},
		Short:   "Make a volume larger, mounted or not",
		Example: "  holdfast volume expand photos --size 20Gi",
		Args:    exactly("NAME"),
	}
	var bytes size.Bytes
	cmd.Flags().Var(&bytes, "size", "new capacity, such as 20Gi; a volume cannot shrink")
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if bytes == 0 {
			return fmt.Errorf("--size is missing (example: holdfast volume expand %s --size 20Gi)", args[0])
		}
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if v.Size, err = c.Expand(cmd.Context(), v, int64(bytes)); err != nil {
				return err
			}
			if *out == asJSON {
				return writeJSON(a.stdout, v)
			}
			_, err = fmt.Fprintf(a.stdout, "volume %s has %s now\n", v.Name, size.Bytes(v.Size))
			return err
		})
	}
	return cmd
}
