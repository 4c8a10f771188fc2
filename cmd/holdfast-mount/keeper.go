package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage"
)

// newKeeper is the privileged command. It stays when the process that started it
// ends, and a SIGTERM ends it at once: the mounter holds the same sessions and
// brings them to the next keeper.
func newKeeper(stderr io.Writer) *cobra.Command {
	var o keeper.Options
	var logs logOptions
	cmd := &cobra.Command{
		Use:   "keeper",
		Short: "Mount, bind and unmount, and keep sessions alive (the only process that needs root)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return storage.Errorf(storage.Denied, "the keeper mounts, so it must run as root")
			}
			signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
			// Away from the terminal, whose Ctrl-C is for others. It fails for the
			// leader of a group: then somebody started just this by hand.
			_, _ = syscall.Setsid()
			log, closeLog, err := logs.open(stderr, "keeper")
			if err != nil {
				return err
			}
			defer closeLog()
			o.Log, o.NotifierThread = log, session.NotifierThread
			k, err := keeper.New(o)
			if err != nil {
				return err
			}
			return k.Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.RunDir, "run-dir", "/run/holdfast", "`folder` of the sockets; made if missing")
	flags.IntVar(&o.NodeUID, "node-uid", 0, "`uid` of the process that may ask for mounts")
	flags.IntVar(&o.MounterUID, "mounter-uid", 65534, "`uid` of the process that may serve them")
	flags.StringArrayVar(&o.AllowRoots, "allow-root", nil, "`folder` beneath which may be mounted; may be given again. A node that is not root may also use directories of its own")
	flags.DurationVar(&o.MounterWait, "mounter-wait", 0, "how long a request waits for a mounter (default 10s)")
	flags.BoolVar(&o.NoSlots, "without-slots", false, "keep no memory for requests (tests)")
	_ = flags.MarkHidden("without-slots")
	logs.register(flags)
	return cmd
}
