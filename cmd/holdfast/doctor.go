package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/doctor"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/steps"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what this machine lacks, and how to mend it",
		Long: `Look at everything that Holdfast needs from this machine: FUSE, SeaweedFS or the
means to download it, the kernel, root for one process, ports, disk, and the state
folder. Nothing is changed. The exit code is 1 when something needed is missing.`,
		Example: "  holdfast doctor\n  holdfast doctor -o json | jq '.[] | select(.ok | not)'",
		Args:    cobra.NoArgs,
	}
	out := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := a.dir()
		if err != nil {
			return err
		}
		status, err := stack.ReadStatus(dir)
		if err != nil {
			return err
		}
		config, err := dir.Config()
		if err != nil {
			return err
		}
		base := config.PortBase
		if base == 0 {
			base = cluster.DefaultPortBase
		}
		show := steps.To(a.stderr)
		defer show.End()
		findings := doctor.Run(cmd.Context(), []doctor.Check{
			doctor.Fuse,
			doctor.Kernel,
			doctor.Mount(stack.FindMount()),
			doctor.Weed(a.options(dir, show).FindOptions()),
			doctor.Sudo,
			doctor.Folder(dir),
			doctor.Disk(dir),
			doctor.Certificates(dir, status.Phase == stack.Ready),
			doctor.Ports(stack.IP, base, stack.VolumeServers, status.Phase != stack.Stopped),
		})
		show.End()
		if *out == asJSON {
			err = writeJSON(a.stdout, findings)
		} else {
			err = a.writeFindings(findings)
		}
		if f := doctor.FirstMissing(findings); err == nil && f != nil {
			err = fmt.Errorf("%s is missing: %s", f.Name, f.Detail)
		}
		return err
	}
	return cmd
}

func (a *app) writeFindings(findings []doctor.Finding) error {
	for _, f := range findings {
		mark := "ok     "
		switch {
		case !f.OK && f.Needed:
			mark = "MISSING"
		case !f.OK:
			mark = "note   "
		}
		if _, err := fmt.Fprintf(a.stdout, "%s  %-14s  %s\n", mark, f.Name, f.Detail); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(a.stdout, "%25s  -> %s\n", "", f.Mend); err != nil {
				return err
			}
		}
	}
	return nil
}
