package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

// This file brings to safety what sessions have left on the node that this worker has
// never served: their worker died while it ended them, or with the keeper, or with the
// machine. Whoever unmounts a volume counts on it, for the next node does not see what
// is kept here.

// endLeft ends a session that another worker has served, which died with it: what it
// has left on the node is brought to the cluster, for nobody else may look for it
// here.
func (s *server) endLeft(ctx context.Context, e keeper.Ending) error {
	e, left, err := s.left(e)
	if err != nil || !left {
		return err
	}
	fs, err := s.open(ctx, keeper.Grant{ID: e.ID, ReadOnly: e.ReadOnly, Config: e.Config})
	if err != nil {
		return err
	}
	if err := fs.Close(ctx); err != nil {
		return errors.Join(fmt.Errorf("close the file system: %w", err), fs.Abandon())
	}
	s.retire(e.ID, fs)
	return nil
}

// configFile of a volume's folder says what the volume is, for whoever finds the
// folder when nobody else knows any more.
const configFile = "mount.json"

// leftover is what stands there.
type leftover struct {
	ReadOnly bool            `json:"readOnly,omitempty"`
	Config   json.RawMessage `json:"config"`
}

// leftOf reports whether there is a folder of a session, and completes what is known
// of that.
func leftOf(volumesDir string, e keeper.Ending) (keeper.Ending, bool, error) {
	dir := filepath.Join(volumesDir, url.PathEscape(e.ID))
	if _, err := os.Lstat(dir); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return e, false, err
	}
	if len(e.Config) > 0 {
		return e, true, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, configFile))
	if errors.Is(err, os.ErrNotExist) {
		// Retired, but for what is kept aside.
		return e, false, nil
	}
	var l leftover
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil {
		return e, false, fmt.Errorf("session %s: what was left of it on this node is not known: %w; mount the volume here once more", e.ID, err)
	}
	e.Config, e.ReadOnly = l.Config, l.ReadOnly
	return e, true, nil
}

// noteConfig writes the file, unless the mounter before did: applications wait for who
// takes over, and it is flushed. Without it everything works but the last resort.
func noteConfig(dir string, g keeper.Grant, log *slog.Logger) {
	path := filepath.Join(dir, configFile)
	if g.InitReply != nil {
		if _, err := os.Lstat(path); err == nil {
			return
		}
	}
	text, err := json.Marshal(leftover{g.ReadOnly, g.Config})
	if err == nil {
		err = wholefile.Write(path, text, 0o600, nil)
	}
	if err != nil {
		log.Warn("what a volume is could not be noted in its folder", "path", dir, "err", err)
	}
}

// retiring removes the file when the session has ended, and all else with it.
type retiring struct {
	healthy
	dir string
}

func (r retiring) Retire() error {
	if err := os.Remove(filepath.Join(r.dir, configFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return r.healthy.Retire()
}
