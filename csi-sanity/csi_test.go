package csisanity

import (
	"os"
	"testing"
)

// The CSI project's own suite, against the sockets of a running installation.
func TestSanity(t *testing.T) {
	in := shared(t)
	s := in.mustStatus(t)
	dir, err := os.MkdirTemp(in.work, "c")
	if err != nil {
		t.Fatal(err)
	}
	runSanity(t, s.Endpoints.Controller, s.Endpoints.Node, dir)
}
