package main

import (
	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/taint"
)

// newUntaint is a command of its own, in a container of its own, so that the node service
// has no way to the API server.
func newUntaint(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "untaint",
		Short:  "Remove the taint " + taint.Key + " of a node when volumes can be mounted there, and stay (started by the chart)",
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	node := cmd.Flags().String("node", "", "name of the node")
	kubeconfig := cmd.Flags().String("kubeconfig", "", "file that leads to the API server (default: the one of this pod)")
	required(cmd, "node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := api.Connect(*kubeconfig, "holdfast-untaint")
		if err != nil {
			return err
		}
		if err := taint.New(client, *node, driver.Name, a.logger()).Remove(cmd.Context()); err != nil {
			return err
		}
		<-cmd.Context().Done() // Kubernetes starts again what ends
		return nil
	}
	return cmd
}
