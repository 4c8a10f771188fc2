package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

// test runs everything on a new cluster and takes it down, whatever fails.
func (h *harness) test(ctx context.Context, args []string) (err error) {
	if len(args) > 1 {
		return fmt.Errorf("test: one regular expression for the names of scenarios, or none")
	}
	keep := os.Getenv("HOLDFAST_E2E_KEEP") != ""
	defer func() {
		if err != nil && keep {
			h.say("failed; the cluster runs on, and  holdfast-e2e down  stops it")
			return
		}
		err = errors.Join(err, cluster.Stop(h.folder))
		h.say("the cluster is gone")
	}()
	if err := h.up(ctx, !keep); err != nil {
		return err
	}
	return h.scenarios(ctx, args)
}

// scenarios runs Holdfast's own tests.
func (h *harness) scenarios(ctx context.Context, names []string) error {
	line := []string{
		"/usr/bin/env", "HOLDFAST_E2E_FOLDER=" + string(h.folder), "HOLDFAST_E2E_BIN=" + h.out, "HOLDFAST_E2E_ROOT=" + h.root,
		filepath.Join(h.out, "scenarios"), "-test.v", "-test.timeout=40m", "-test.parallel=8",
	}
	if len(names) == 1 {
		line = append(line, "-test.run=^TestInstall$|"+names[0]) // most need Holdfast
	}
	h.say("running the scenarios")
	if err := h.enter(ctx, line...); err != nil {
		return fmt.Errorf("the scenarios: %w", err)
	}
	return nil
}
