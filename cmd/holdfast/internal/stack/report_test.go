package stack

import (
	"os"
	"os/exec"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// Between its death and the moment in which the supervisor reaps it, a process was
// told to run and to be ready, under no number.
func TestStatusOfAProcessThatHasJustDied(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	known := supervise.Status{Name: "node", PID: cmd.Process.Pid, Running: true, Ready: true}
	if c := component(known); c.PID != known.PID || !c.Running || !c.Ready {
		t.Errorf("alive: %+v", c)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if c := component(known); c.PID != 0 || c.Running || c.Ready {
		t.Errorf("dead, and not known to be: %+v", c)
	}
	if c := component(supervise.Status{Name: "node", LastExit: "signal: killed"}); c.Running || c.LastExit != "signal: killed" {
		t.Errorf("between two lives: %+v", c)
	}
	if c := component(supervise.Status{Name: "node", PID: os.Getpid(), Running: true}); !c.Running || c.Ready {
		t.Errorf("not ready yet: %+v", c)
	}
}
