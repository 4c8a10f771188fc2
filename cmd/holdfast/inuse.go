package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/inuse"
	"github.com/holdfast-csi/holdfast/storage"
)

const inUseLong = `Say which pods of a Kubernetes cluster have a volume of Holdfast, and fail when there
are some. The chart asks it before it is uninstalled.`

func newInUse(*app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "in-use",
		Short:  "Say which pods have volumes, and fail when there are some (started by the chart)",
		Long:   inUseLong,
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	kubeconfig := cmd.Flags().String("kubeconfig", "", "file that leads to the API server (default: the one of this pod)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := api.Connect(*kubeconfig, "holdfast-in-use")
		if err != nil {
			return err
		}
		uses, err := inuse.Find(cmd.Context(), client, driver.Name)
		if err != nil {
			return err
		}
		for _, u := range uses {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), u); err != nil {
				return err
			}
		}
		if len(uses) > 0 {
			return storage.Errorf(storage.InUse, "%d volumes are mounted in pods, which would lose their files: delete those pods first", len(uses))
		}
		return nil
	}
	return cmd
}
