package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/driver/size"
)

func newVolumeDescribe(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "describe NAME",
		Aliases: []string{"show"},
		Short:   "Tell everything about a volume",
		Example: "  holdfast volume describe photos\n  holdfast volume describe photos -o json | jq -r .bucket",
		Args:    exactly("NAME"),
	}
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withVolumes(func(c *volumes.Client) error {
			d, err := c.Describe(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if *out == asJSON {
				return writeJSON(a.stdout, d)
			}
			used := "-"
			if d.Used != nil {
				used = size.Bytes(*d.Used).String()
			}
			keys := []string{orDash(tailOf(d.Keys.Access))}
			for _, k := range d.Keys.Retired {
				keys = append(keys, fmt.Sprintf("old key %s works until %s", tailOf(k.Access), k.Until.Format(time.RFC3339)))
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			for _, row := range [][2]string{
				{"Name", d.Name},
				{"ID", d.ID},
				{"Bucket", d.Bucket},
				{"Folder", orDash(d.Prefix)},
				{"On delete", string(d.OnDelete)},
				{"Size", fmt.Sprintf("%s (%d bytes)", size.Bytes(d.Size), d.Size)},
				{"Access", string(d.Access)},
				{"Placement", orDash(d.Placement.String())},
				{"Phase", d.Phase},
				{"Keys", strings.Join(keys, "; ")},
				{"Used", used},
				{"In use by", orDash(strings.Join(users(d), ", "))},
				{"Mounted at", orDash(strings.Join(d.Mounts, ", "))},
			} {
				_, _ = fmt.Fprintf(w, "%s:\t%s\n", row[0], row[1])
			}
			return w.Flush()
		})
	}
	return cmd
}

// users are the nodes that have the volume, since and until when.
func users(d volumes.Description) []string {
	list := make([]string, 0, len(d.Nodes))
	for _, node := range d.Nodes {
		if i := slices.IndexFunc(d.Leases, func(l volumes.Lease) bool { return l.Node == node }); i >= 0 && !d.Leases[i].Since.IsZero() {
			l := d.Leases[i]
			node = fmt.Sprintf("%s (since %s, until %s if it falls silent)", node, l.Since.Local().Format(time.DateTime), l.Until.Local().Format(time.TimeOnly))
		}
		list = append(list, node)
	}
	return list
}
