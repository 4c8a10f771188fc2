package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/driver"
)

// This file asks a mount something in a child process. A mount whose server does
// not answer keeps whoever asks waiting in the kernel, and a thread of ours cannot
// be taken out of there; a child can be killed. The kernel then takes its request
// back, if the server has not read it, or tells the server that nobody waits.

// measured is what the child prints: one of the two.
type measured struct {
	Usage driver.Usage  `json:"usage"`
	Errno syscall.Errno `json:"errno,omitempty"`
}

// newStatfs is the child.
func newStatfs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "statfs DIR",
		Short:  "Ask a mount for its size (started by the node service, which kills it at its deadline)",
		Hidden: true,
		Args:   exactly("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := measure(args[0])
			if err != nil {
				return err
			}
			return json.NewEncoder(a.stdout).Encode(m)
		},
	}
}

func measure(path string) (m measured, err error) {
	// Twice, for settle: the kernel may drop the first answer.
	for range 2 {
		_, _ = os.Stat(path) // statfs has the same error, or an answer all the same
	}
	m.Usage, err = driver.Statfs(path)
	if err != nil && !errors.As(err, &m.Errno) {
		return m, err
	}
	return m, nil
}

// statfs runs the child. It returns when the child is gone, at ctx's end as a rule.
func statfs(ctx context.Context, path string) (driver.Usage, error) {
	var out, said bytes.Buffer
	// Not os.Executable: an upgrade may have put another program there.
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "statfs", "--", path)
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ctx.Err() != nil {
		return driver.Usage{}, ctx.Err()
	}
	if err != nil {
		return driver.Usage{}, fmt.Errorf("the process that measures: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	var m measured
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		return driver.Usage{}, fmt.Errorf("the process that measures said %q: %w", out.Bytes(), err)
	}
	if m.Errno != 0 {
		return driver.Usage{}, m.Errno
	}
	return m.Usage, nil
}
