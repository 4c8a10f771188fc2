package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// statusView is the answer of `holdfast status`.
type statusView struct {
	stack.Status
	Mounts       volumes.Records `json:"mounts"`
	Certificates []pki.End       `json:"certificates"`
}

func newStatus(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs",
		Long: `Show the processes, the addresses and the mounts. The exit code is 1 when
something does not run that should.`,
		Example: "  holdfast status\n  holdfast status -o json | jq -r .endpoints.s3",
		Args:    cobra.NoArgs,
	}
	out := formatFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		dir, err := a.dir()
		if err != nil {
			return err
		}
		view := statusView{Mounts: volumes.Records{}}
		if view.Status, err = stack.ReadStatus(dir); err != nil {
			return err
		}
		records, err := volumes.ReadRecords(dir)
		if err != nil {
			return err
		}
		view.Mounts = append(view.Mounts, records...)
		if view.Certificates, err = pki.Ends(dir.PKI()); err != nil {
			return err
		}
		if *out == asJSON {
			err = writeJSON(a.stdout, view)
		} else {
			err = writeStatus(a.stdout, view)
		}
		if err != nil {
			return err
		}
		return errors.Join(verdict(view.Status), ended(view.Status, view.Certificates))
	}
	return cmd
}

// ended says which certificates of a running installation let nobody in any more.
// They are renewed long before, so something keeps the supervisor from it.
func ended(s stack.Status, ends []pki.End) error {
	over := pki.Ended(ends, time.Now())
	if s.Phase != stack.Ready || len(over) == 0 {
		return nil
	}
	return fmt.Errorf("the certificate of %s ended at %s and was not renewed; run holdfast down, then holdfast up (%s may say why)",
		over[0].Name, over[0].At.Format(time.DateTime), state.Dir(s.State).Log("supervisor"))
}

// verdict is the error behind the exit code.
func verdict(s stack.Status) error {
	switch {
	case s.Phase == stack.Stopped && s.Supervisor.PID == 0:
		return fmt.Errorf("nothing runs with state %s; start it with: holdfast up", s.State)
	case s.Phase == stack.Stopped, s.Phase == stack.Failed:
		return fmt.Errorf("stopped; start it with: holdfast up")
	case s.Phase != stack.Ready:
		return fmt.Errorf("%s: %s", s.Phase, s.Doing)
	}
	var gone []string
	for _, p := range s.Processes {
		if !p.Running || !p.Ready {
			gone = append(gone, p.Name)
		}
	}
	if gone != nil {
		return fmt.Errorf("not ready: %s", strings.Join(gone, ", "))
	}
	return nil
}

func writeStatus(out io.Writer, v statusView) error {
	if v.Phase == stack.Stopped {
		return nil
	}
	if err := writeEndpoints(out, v.Status); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "\nPROCESS\tPID\tSTATE\tRESTARTS\n")
	_, _ = fmt.Fprintf(w, "supervisor\t%d\t%s\t0\n", v.Supervisor.PID, v.Phase)
	for _, p := range v.Processes {
		state, pid := "ready", strconv.Itoa(p.PID)
		switch {
		case !p.Running:
			state, pid = "gone", "-"
		case !p.Ready:
			state = "starting"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", p.Name, pid, state, p.Restarts)
	}
	if len(v.Mounts) > 0 {
		_, _ = fmt.Fprintf(w, "\nVOLUME\tMOUNTED AT\t\t\n")
	}
	for _, m := range v.Mounts {
		_, _ = fmt.Fprintf(w, "%s\t%s\t\t\n", m.Name, m.Target)
	}
	_, _ = fmt.Fprintf(w, "\nRunning since %s\t\t\t\n", v.Since.Format(time.DateTime))
	return w.Flush()
}
