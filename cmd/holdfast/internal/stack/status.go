package stack

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
)

// Phase is how far an installation has come.
type Phase string

// The phases. Stopped is never written: it is what a state has when nobody holds
// its supervisor lock.
const (
	Stopped  Phase = "stopped"
	Starting Phase = "starting"
	Ready    Phase = "ready"
	Stopping Phase = "stopping"
	// Failed is written when a start was given up, for the one who waits for it.
	Failed Phase = "failed"
)

// Status is what the supervisor tells of itself, in run/status.json. A file was
// chosen over a socket of its own: it can be read when the supervisor hangs, and
// its last words when it is gone.
type Status struct {
	Phase Phase  `json:"phase"`
	State string `json:"state"`
	// Step of Steps is Doing, while starting or stopping.
	Step  int    `json:"step,omitempty"`
	Steps int    `json:"steps,omitempty"`
	Doing string `json:"doing,omitempty"`
	// Error is why a start or a stop failed, Warnings what did not keep it from
	// going on.
	Error    string   `json:"error,omitempty"`
	Warnings []string `json:"warnings,omitempty"`

	Supervisor process.ID  `json:"supervisor"`
	Since      time.Time   `json:"since"`
	PortBase   int         `json:"port_base"`
	Endpoints  Endpoints   `json:"endpoints"`
	Processes  []Component `json:"processes"`
}

// Endpoints are where an installation is reached.
type Endpoints struct {
	S3         string `json:"s3"`
	Filer      string `json:"filer"`
	Controller string `json:"csi_controller"`
	Node       string `json:"csi_node"`
	AdminKeys  string `json:"admin_keys"`
}

// Component is one process.
type Component struct {
	Name string `json:"name"`
	process.ID
	Running  bool   `json:"running"`
	Ready    bool   `json:"ready"`
	Restarts int    `json:"restarts"`
	LastExit string `json:"last_exit,omitempty"`
}

func statusFile(dir state.Dir) string { return dir.RunFile("status.json") }

// ReadStatus returns what the supervisor of dir last said, as far as it is still
// true.
func ReadStatus(dir state.Dir) (Status, error) {
	var s Status
	err := state.ReadJSON(statusFile(dir), &s)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Status{}, err
	}
	s.State = string(dir)
	if !dir.Locked(state.Supervisor) && s.Phase != Failed {
		s.Phase = Stopped
	}
	return s, nil
}

// Healthy reports whether everything runs.
func (s Status) Healthy() bool {
	if s.Phase != Ready {
		return false
	}
	for _, p := range s.Processes {
		if !p.Running || !p.Ready {
			return false
		}
	}
	return true
}

// statusWriter replaces the status file when there is something new. It does not
// flush it: after a power cut nothing of it is true.
type statusWriter struct {
	path string
	last []byte
}

func (w *statusWriter) write(s Status) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil || bytes.Equal(b, w.last) {
		return err
	}
	next := w.path + ".new"
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(next, w.path); err != nil {
		return err
	}
	w.last = b
	return nil
}
