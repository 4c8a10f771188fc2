package csisanity

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// bin is the folder with the binaries.
var bin string

func TestMain(m *testing.M) {
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if what := os.Getenv(mmapVariable); what != "" {
		if err := mapMain(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if what := os.Getenv(intruderVariable); what != "" {
		if err := intruderMain(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	dir := os.Getenv("HOLDFAST_BIN")
	if dir == "" {
		dir = "../bin"
	}
	var err error
	if bin, err = filepath.Abs(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, name := range []string{"holdfast", "holdfast-mount"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			fmt.Fprintf(os.Stderr, "These tests run the built binaries, and %v: run make build\n", err)
			return 1
		}
	}
	if os.Getuid() != 0 && asRoot("true").Run() != nil {
		fmt.Fprintln(os.Stderr, "These tests mount: they need root, or sudo without a password")
		return 1
	}
	code := m.Run()
	if err := theShared.close(); err != nil {
		fmt.Fprintf(os.Stderr, "the shared installation: %v\n", err)
		return 1
	}
	return code
}
