package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

const rotateKeysLong = `Give a volume new S3 keys. "holdfast volume credentials" prints them from then on.

The old keys work until the overlap ends, so that whoever uses them has time to
read the new ones; with an overlap of 0 they end at once. No key that is not
current outlives the overlap: not those that a user of the old keys has made for
itself, nor those that an earlier rotation left for longer.`

const rotateKeysExample = `  holdfast volume rotate-keys photos               # the old keys work for another hour
  holdfast volume rotate-keys photos --overlap 0   # they have leaked`

// defaultOverlap is long enough for jobs that read their keys when they begin.
const defaultOverlap = time.Hour

func newVolumeRotateKeys(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rotate-keys NAME",
		Short:   "Give a volume new S3 keys and end the old ones",
		Long:    rotateKeysLong,
		Example: rotateKeysExample,
		Args:    exactly("NAME"),
	}
	overlap := cmd.Flags().Duration("overlap", defaultOverlap, "how long the old keys go on working, such as 15m; 0 ends them at once")
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			keys, err := c.RotateKeys(cmd.Context(), v, *overlap)
			if err != nil {
				return err
			}
			if *out == asJSON {
				return writeJSON(a.stdout, keys)
			}
			_, err = fmt.Fprintf(a.stdout, "volume %s has new keys: %s\n", v.Name, tailOf(keys.Access))
			for _, k := range keys.Retired {
				if err == nil {
					_, err = fmt.Fprintf(a.stdout, "old key %s works until %s\n", tailOf(k.Access), k.Until.Format(time.RFC3339))
				}
			}
			return err
		})
	}
	return cmd
}

// tailOf shows the end of an access key, enough to tell it from another.
func tailOf(access string) string {
	const shown = 4
	if len(access) <= shown {
		return access
	}
	return "…" + access[len(access)-shown:]
}
