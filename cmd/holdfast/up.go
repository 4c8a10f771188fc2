package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/doctor"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/steps"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

const upLong = `Start a SeaweedFS cluster, the CSI driver and what serves the mounts, all on this
machine, and return when they work. Volumes that were mounted are mounted again.

Everything listens on 127.0.0.1 only. S3 is on port 8333 unless that is taken;
then all ports move to a free place, which is said and remembered. Data, logs and
keys are kept in the state folder; two folders are two installations, side by
side.

As root, every process but one gives its rights away. As an ordinary user, one
process alone, the keeper, is started with sudo: it mounts.`

const upExample = `  holdfast up
  holdfast up --port-base 9000             # S3 on 9008; an error if a port is taken
  HOLDFAST_STATE=/srv/second holdfast up   # a second installation
  holdfast up --foreground                 # for systemd and the like`

func newUp(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "up",
		Aliases: []string{"start"},
		Short:   "Start everything",
		Long:    upLong,
		Example: upExample,
		Args:    cobra.NoArgs,
	}
	portBase := cmd.Flags().Int("port-base", 0, "first of ten ports; S3 is the ninth (default 8325, or the next that are free)")
	s3TLS := cmd.Flags().Bool("s3-tls", false, "S3 speaks TLS with a certificate of the state's own authority; remembered until --s3-tls=false")
	foreground := cmd.Flags().Bool("foreground", false, "stay, and stop everything on SIGTERM")
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("port-base") && (*portBase < 1 || *portBase > 65000) {
			return fmt.Errorf("--port-base %d: 1 to 65000 are possible", *portBase)
		}
		dir, err := a.dir()
		if err != nil {
			return err
		}
		show := steps.To(a.stderr)
		defer show.End()
		o := a.options(dir, show)
		o.PortBase = *portBase
		if cmd.Flags().Changed("s3-tls") {
			o.S3TLS = s3TLS
		}
		if *foreground {
			return a.upForeground(cmd.Context(), o, show)
		}
		status, err := a.upBackground(cmd.Context(), o, show)
		show.End()
		if err != nil {
			return err
		}
		if *out == asJSON {
			return writeJSON(a.stdout, status)
		}
		return writeEndpoints(a.stdout, status)
	}
	return cmd
}

// options of the installation in dir, with steps shown.
func (a *app) options(dir state.Dir, show *steps.Show) stack.Options {
	return stack.Options{
		Dir:      dir,
		Weed:     os.Getenv(stack.EnvWeed),
		Cache:    stack.CacheDir(os.Getuid(), os.Getenv),
		Deadline: os.Getenv(stack.EnvDeadline),
		Lease:    os.Getenv(stack.EnvLease),
		NoSlots:  os.Getenv(stack.EnvSlots) == "off",
		Progress: show.At,
	}
}

// ready checks what can be known before anything is made, and makes the folder.
func (a *app) ready(ctx context.Context, dir state.Dir) error {
	checks := []doctor.Check{doctor.Folder(dir), doctor.Fuse, doctor.Kernel, doctor.Sudo}
	if f := doctor.FirstMissing(doctor.Run(ctx, checks)); f != nil {
		return fmt.Errorf("%s: %s; %s", f.Name, f.Detail, f.Mend)
	}
	return dir.Prepare(state.AccountsFor(os.Getuid(), os.Getgid()))
}

func (a *app) upForeground(ctx context.Context, o stack.Options, show *steps.Show) error {
	if err := a.ready(ctx, o.Dir); err != nil {
		return err
	}
	o, err := stack.Begin(ctx, o, steps.IsTerminal(a.stdin))
	if err != nil {
		return err
	}
	return stack.Run(ctx, o, func(s stack.Status) {
		show.End()
		_ = writeEndpoints(a.stdout, s)
	})
}

func (a *app) upBackground(ctx context.Context, o stack.Options, show *steps.Show) (status stack.Status, err error) {
	if err := a.ready(ctx, o.Dir); err != nil {
		return status, err
	}
	err = stack.Exclusive(ctx, o.Dir, func() error {
		if status, err = stack.ReadStatus(o.Dir); err != nil {
			return err
		}
		switch status.Phase {
		case stack.Ready:
			show.Say("Holdfast runs already with state %s", o.Dir)
			if o.S3TLS != nil && *o.S3TLS != strings.HasPrefix(status.Endpoints.S3, "https:") {
				return fmt.Errorf("--s3-tls=%v: S3 runs already the other way; run holdfast down first", *o.S3TLS)
			}
			ends, err := pki.Ends(o.Dir.PKI())
			return errors.Join(err, ended(status, ends))
		case stack.Starting:
			status, err = stack.Join(ctx, o, status)
			return err
		case stack.Stopping:
			return fmt.Errorf("the installation in %s is just being stopped; try again in a moment", o.Dir)
		case stack.Stopped, stack.Failed:
		}
		if o, err = stack.Begin(ctx, o, steps.IsTerminal(a.stdin)); err != nil {
			return err
		}
		status, err = stack.Up(ctx, o)
		return err
	})
	return status, err
}

func writeEndpoints(w io.Writer, s stack.Status) error {
	_, err := fmt.Fprintf(w, `S3 endpoint:    %s
Admin keys:     %s
CSI controller: unix://%s
CSI node:       unix://%s
State folder:   %s
`, s.Endpoints.S3, s.Endpoints.AdminKeys, s.Endpoints.Controller, s.Endpoints.Node, s.State)
	return err
}
