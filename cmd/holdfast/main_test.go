package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// call runs one command line with a state of its own, which is not there.
func call(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Setenv("HOLDFAST_STATE", t.TempDir()+"/state")
	var out, errs bytes.Buffer
	err = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), err
}

func TestVersion(t *testing.T) {
	out, _, err := call(t, "version", "-o", "json")
	var v versionInfo
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || v.Version == "" || v.Go == "" {
		t.Errorf("%q, %v", out, err)
	}
	if out, _, err := call(t, "version"); err != nil || !strings.HasPrefix(out, "holdfast ") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestWithoutAnInstallation(t *testing.T) {
	for _, args := range [][]string{
		{"status"},
		{"volume", "list"},
		{"volume", "create", "x", "--size", "1Gi"},
		{"volume", "mount", "x", t.TempDir() + "/x"},
		{"volume", "credentials", "x"},
	} {
		if _, _, err := call(t, args...); err == nil || !strings.Contains(err.Error(), "holdfast up") {
			t.Errorf("%v: %v, want the way to start", args, err)
		}
	}
	if _, errs, err := call(t, "down"); err != nil || !strings.Contains(errs, "Nothing runs") {
		t.Errorf("down: %q, %v", errs, err)
	}
	if _, _, err := call(t, "down", "--delete-data"); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("down --delete-data with nobody to ask: %v", err)
	}
}

// Every command explains itself, and those that people call show an example.
func TestHelp(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no description", cmd.CommandPath())
		}
		if cmd.Example == "" && !cmd.Hidden {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&app{}))
}

func TestOneLine(t *testing.T) {
	if got := oneLine(errors.Join(errors.New("a\nb"), errors.New("c"))); got != "a; b; c" {
		t.Errorf("%q", got)
	}
}

// The lines are what a shell makes of them, whatever is in them.
func TestCredentialsForAShell(t *testing.T) {
	c := bucketCredentials{Endpoint: "http://127.0.0.1:8333", Region: "r", Bucket: "b", Access: "a", Secret: `it's $HOME "and" \ more`}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `eval "$0"; printf %s "$AWS_SECRET_ACCESS_KEY|$BUCKET|$AWS_DEFAULT_REGION"`, c.env())
	cmd.Env = os.Environ()
	out, err := cmd.Output()
	if want := c.Secret + "|b|r"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}
