package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session"
)

func newKeeper() *cobra.Command {
	var (
		logs logFlags
		o    = keeper.Options{NotifierThread: session.NotifierThread}
	)
	cmd := &cobra.Command{
		Use:   "keeper --run-dir DIR --node-uid UID --mounter-uid UID",
		Short: "Mount and unmount, and keep the descriptors (the only privileged process)",
		Long: "The keeper mounts on behalf of the node process and hands the descriptors to the\n" +
			"mounter, over two sockets in --run-dir that only these users may open. It holds a\n" +
			"copy of each descriptor, so a mount outlives the mounter. When the keeper ends, the\n" +
			"mounts live on in the mounter, which offers them to the next keeper.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, closeLog := logs.open()
			defer closeLog()
			o.Log = log
			k, err := keeper.New(o)
			if err != nil {
				return err
			}
			log.Info("keeper starts", "version", version, "path", o.RunDir)
			err = k.Run(cmd.Context())
			if cmd.Context().Err() != nil {
				log.Info("keeper ends: it was told to")
				return nil
			}
			if err != nil {
				log.Error("keeper ends", "err", err)
				return fmt.Errorf("keeper: %w", err)
			}
			log.Info("keeper ends: the node process has shut it down")
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.RunDir, "run-dir", "", "folder of the sockets")
	f.IntVar(&o.NodeUID, "node-uid", 0, "user of the node process")
	f.IntVar(&o.MounterUID, "mounter-uid", -1, "user of the mounter")
	f.StringArrayVar(&o.AllowRoots, "allow-root", nil, "folder beneath which targets may lie; repeat it for more")
	f.DurationVar(&o.MounterWait, "mounter-wait", 0, "how long a mount waits for a mounter (default 10s)")
	logs.add(cmd)
	for _, name := range []string{"run-dir", "mounter-uid"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was just defined
		}
	}
	return cmd
}
