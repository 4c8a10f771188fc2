package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
)

// app is what every command has at hand.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// stateFlag is --state; dir resolves it.
	stateFlag string
}

const rootLong = `Holdfast gives you volumes that are S3 buckets too: a volume is mounted as a
file system, and the same bytes are read and written over S3.

"holdfast up" starts it all on this machine: a SeaweedFS cluster, the CSI driver
and the processes that serve the mounts.`

const rootExample = `  holdfast doctor                          # is anything missing on this machine?
  holdfast up                              # start
  holdfast volume create photos --size 10Gi
  holdfast volume mount photos ~/photos
  eval "$(holdfast volume credentials photos --format env)"
  aws s3 ls "s3://$BUCKET"                 # what is in ~/photos
  holdfast down                            # stop; the data stays`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Short:         "Volumes that are S3 buckets",
		Long:          rootLong,
		Example:       rootExample,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{
			HiddenDefaultCmd: true,
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.stateFlag, "state", "",
		"folder that holds the installation (default $HOLDFAST_STATE, else /var/lib/holdfast for root and ~/.local/share/holdfast for others)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
	})
	root.AddCommand(
		newUp(a),
		newDown(a),
		newStatus(a),
		newVolume(a),
		newParameters(a),
		newMetrics(a),
		newDoctor(a),
		newVersion(a),
		newCompanion(a),
		newController(a),
		newNode(a),
		newStatfs(a),
		newIssuer(a),
		newFolder(a),
		newUntaint(a),
		newInUse(a),
	)
	return root
}

// dir is the state folder of this call.
func (a *app) dir() (state.Dir, error) {
	return state.Find(a.stateFlag, os.Getuid(), os.Getenv)
}

// exactly is cobra.ExactArgs with words for the arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing (usage: %s)", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many (usage: %s)", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}
