package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/steps"
)

const downLong = `Unmount all volumes and stop everything. The data stays, and so does what is to
be mounted by the next "holdfast up".

If a mount is busy nothing is stopped. It takes about 15 seconds, which is how
long SeaweedFS's filer takes to end.`

func newDown(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "down",
		Aliases: []string{"stop"},
		Short:   "Stop everything",
		Long:    downLong,
		Example: "  holdfast down\n  holdfast down --delete-data   # and delete all volumes",
		Args:    cobra.NoArgs,
	}
	deleteData := cmd.Flags().Bool("delete-data", false, "delete the state folder with all volumes, after asking")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := a.dir()
		if err != nil {
			return err
		}
		if *deleteData {
			question := fmt.Sprintf("Delete all volumes and everything in them, in %s?", dir)
			if kept := stack.Leftovers(dir); kept > 0 {
				question = fmt.Sprintf("Delete all volumes and everything in them, in %s, and what could not be committed and is kept in %s (files: %d)?", dir, dir.Mounter(), kept)
			}
			if err := a.confirm(cmd.Context(), *yes, question); err != nil {
				return err
			}
		}
		if !dir.Exists() {
			_, err := fmt.Fprintf(a.stderr, "Nothing runs: there is no installation in %s\n", dir)
			return err
		}
		show := steps.To(a.stderr)
		defer show.End()
		return stack.Exclusive(cmd.Context(), dir, func() error {
			ran, err := stack.Down(cmd.Context(), a.options(dir, show))
			if err != nil {
				return err
			}
			if !ran {
				show.Say("Nothing runs with state %s", dir)
			}
			if *deleteData {
				return stack.Delete(dir)
			}
			return nil
		})
	}
	return cmd
}
