package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/driver"
)

func newParameters(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "parameters",
		Aliases: []string{"params"},
		Short:   "Say what a StorageClass, or volume create --param, may set",
		Example: "  holdfast parameters\n  holdfast volume create data --size 1Ti --param onDelete=retain",
		Args:    cobra.NoArgs,
	}
	markdown := cmd.Flags().Bool("markdown", false, "print driver/PARAMETERS.md, with the parameters of other drivers")
	cmd.RunE = func(*cobra.Command, []string) error {
		text := driver.ParametersHelp()
		if *markdown {
			text = driver.ParametersDocument()
		}
		_, err := fmt.Fprint(a.stdout, text)
		return err
	}
	return cmd
}
