package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
)

const volumeLong = `Make, mount and remove volumes.

Each volume is an S3 bucket with keys of its own. These commands speak CSI to the
driver that "holdfast up" started.`

const volumeExample = `  holdfast volume create photos --size 10Gi
  holdfast volume mount photos ~/photos
  holdfast volume list
  holdfast volume unmount ~/photos
  holdfast volume delete photos`

func newVolume(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "volume",
		Aliases: []string{"volumes", "vol"},
		Short:   "Make, mount and remove volumes",
		Long:    volumeLong,
		Example: volumeExample,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newVolumeCreate(a),
		newVolumeList(a),
		newVolumeDescribe(a),
		newVolumeMount(a),
		newVolumeUnmount(a),
		newVolumeSync(a),
		newVolumeExpand(a),
		newVolumeDelete(a),
		newVolumeCredentials(a),
		newVolumeRotateKeys(a),
	)
	return cmd
}

// withVolumes gives do a client of the driver.
func (a *app) withVolumes(do func(*volumes.Client) error) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	client, err := volumes.Dial(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(client), client.Close())
}
