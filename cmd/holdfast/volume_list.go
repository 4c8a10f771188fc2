package main

import (
	"fmt"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/driver/size"
	"github.com/holdfast-csi/holdfast/storage"
)

func newVolumeList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the volumes and where they are mounted here",
		Example: "  holdfast volume list\n  holdfast volume list -o json | jq -r '.[].name'",
		Args:    cobra.NoArgs,
	}
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withVolumes(func(c *volumes.Client) error {
			all, err := c.List(cmd.Context())
			if err != nil {
				return err
			}
			if *out == asJSON {
				return writeJSON(a.stdout, all)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "NAME\tSIZE\tACCESS\tBUCKET\tMOUNTED AT")
			for _, v := range all {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Name, size.Bytes(v.Size), v.Access, path.Join(v.Bucket, v.Prefix), mountedAt(v))
			}
			return w.Flush()
		})
	}
	return cmd
}

// mountedAt is where a volume is mounted, or why it is not.
func mountedAt(v volumes.Volume) string {
	if v.Phase == string(storage.Archived) {
		return "archived"
	}
	return orDash(strings.Join(v.Mounts, ", "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
