package main

import (
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/storage"
)

// consequence says before and after a deletion what becomes of the data.
func consequence(v volumes.Volume) (question, after string) {
	where := path.Join(v.Bucket, v.Prefix)
	switch {
	case v.Phase == string(storage.Archived):
		return fmt.Sprintf("Volume %s is archived. Forget it, if its bucket %s is gone?", v.Name, v.Bucket),
			fmt.Sprintf("An archived volume is forgotten once its bucket is gone; bucket %s is not touched.", v.Bucket)
	case v.OnDelete == storage.Archive:
		return fmt.Sprintf("Archive volume %s and end its keys? The data in %s stays.", v.Name, where),
			fmt.Sprintf("Archived. The data stays in bucket %s; make the volume again with the same parameters to use it.", where)
	case v.OnDelete == storage.Retain:
		return fmt.Sprintf("Delete volume %s and its keys? The data in %s stays.", v.Name, where),
			fmt.Sprintf("The data stays in bucket %s.", where)
	}
	return fmt.Sprintf("Delete volume %s and everything in its bucket %s?", v.Name, v.Bucket), ""
}

func newVolumeDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"rm"},
		Short:   "Delete a volume, and its bucket with everything in it unless onDelete says otherwise",
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
			question, after := consequence(v)
			if err := a.confirm(cmd.Context(), *yes, question); err != nil {
				return err
			}
			if err := c.Delete(cmd.Context(), v); err != nil || after == "" {
				return err
			}
			_, err = fmt.Fprintln(a.stderr, after)
			return err
		})
	}
	return cmd
}
