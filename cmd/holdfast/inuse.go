package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/driver"
	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/inuse"
	"github.com/holdfast-csi/holdfast/storage"
)

const inUseLong = `Say which pods of a Kubernetes cluster have a volume of Holdfast, and fail when there
are some. Volumes that are being deleted are waited for. The chart asks it before it is
uninstalled.`

// deletingEvery is how often it is looked whether a volume is gone.
const deletingEvery = 2 * time.Second

func newInUse(*app) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "in-use",
		Short:  "Say which pods have volumes, and fail when there are some (started by the chart)",
		Long:   inUseLong,
		Args:   cobra.NoArgs,
		Hidden: true,
	}
	kubeconfig := cmd.Flags().String("kubeconfig", "", "file that leads to the API server (default: the one of this pod)")
	wait := cmd.Flags().Duration("wait", time.Minute, "how long volumes that are being deleted are waited for")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := api.Connect(*kubeconfig, "holdfast-in-use")
		if err != nil {
			return err
		}
		if err := refuseUsed(cmd.Context(), client, cmd.OutOrStdout()); err != nil {
			return err
		}
		return awaitDeleted(cmd.Context(), client, *wait)
	}
	return cmd
}

func refuseUsed(ctx context.Context, client api.Client, out io.Writer) error {
	uses, err := inuse.Find(ctx, client, driver.Name)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if _, err := fmt.Fprintln(out, u); err != nil {
			return err
		}
	}
	if len(uses) > 0 {
		return storage.Errorf(storage.InUse, "%d volumes are mounted in pods, which would lose their files: delete those pods first", len(uses))
	}
	return nil
}

func awaitDeleted(ctx context.Context, client api.Client, wait time.Duration) error {
	end := time.Now().Add(wait)
	tick := time.NewTicker(deletingEvery)
	defer tick.Stop()
	for {
		names, err := inuse.Deleting(ctx, client, driver.Name)
		if err != nil || len(names) == 0 {
			return err
		}
		if time.Now().After(end) {
			return storage.Errorf(storage.InUse, "volumes that are being deleted, and would stay for ever: %s; kubectl describe persistentvolume says why", strings.Join(names, ", "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
