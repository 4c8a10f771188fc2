package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	for _, c := range []struct {
		given string
		uid   int
		env   map[string]string
		want  Dir
	}{
		{"", 0, nil, "/var/lib/holdfast"},
		{"", 0, map[string]string{"HOLDFAST_STATE": "/srv/h"}, "/srv/h"},
		{"/given/", 0, map[string]string{"HOLDFAST_STATE": "/srv/h"}, "/given"},
		{"", 1000, map[string]string{"HOME": "/home/u"}, "/home/u/.local/share/holdfast"},
		{"", 1000, map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": "/d"}, "/d/holdfast"},
		{"", 1000, map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": "relative"}, "/home/u/.local/share/holdfast"},
	} {
		got, err := Find(c.given, c.uid, func(k string) string { return c.env[k] })
		if err != nil || got != c.want {
			t.Errorf("Find(%q, %d, %v) = %q, %v; want %q", c.given, c.uid, c.env, got, err, c.want)
		}
	}
	if d, err := Find("", 1000, func(string) string { return "" }); err == nil {
		t.Errorf("without any folder Find gave %q", d)
	}
}

func TestCheckSockets(t *testing.T) {
	fits := Dir("/" + strings.Repeat("x", maxSocketPath-len("//run/csi-controller.sock")))
	if err := fits.CheckSockets(); err != nil {
		t.Errorf("%d bytes: %v", len(fits.ControllerSocket()), err)
	}
	if err := (fits + "x").CheckSockets(); err == nil || !strings.Contains(err.Error(), "1 bytes too long") {
		t.Errorf("a byte more: %v", err)
	}
}

func TestConfig(t *testing.T) {
	d := Dir(t.TempDir())
	if c, err := d.Config(); err != nil || c != (Config{}) {
		t.Fatalf("a new state has %+v, %v", c, err)
	}
	if err := d.SaveConfig(Config{PortBase: 9000}); err != nil {
		t.Fatal(err)
	}
	if c, err := d.Config(); err != nil || c.PortBase != 9000 {
		t.Errorf("read back %+v, %v", c, err)
	}
}

func TestLock(t *testing.T) {
	d := Dir(t.TempDir())
	me := Account{os.Getuid(), os.Getgid()}
	if err := d.Prepare(Accounts{me, me, me}); err != nil {
		t.Fatal(err)
	}
	l, err := d.TryLock(Supervisor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.TryLock(Supervisor); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock: %v", err)
	}
	if !d.Locked(Supervisor) || d.Locked(Command) {
		t.Error("Locked does not tell the one lock from the other")
	}
	if err := l.Unlock(); err != nil || d.Locked(Supervisor) {
		t.Errorf("still locked: %v", err)
	}
}

func TestClosed(t *testing.T) {
	top := t.TempDir()
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	mid := filepath.Join(top, "mid")
	leaf := filepath.Join(mid, "leaf")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	// The test's own folder may lie under a closed one.
	above := Closed(filepath.Dir(top))
	if got := Closed(leaf); got != above {
		t.Errorf("Closed = %q, want %q", got, above)
	}
	if err := os.Chmod(mid, 0o750); err != nil {
		t.Fatal(err)
	}
	if got := Closed(leaf); above == "" && got != mid {
		t.Errorf("Closed = %q, want %q", got, mid)
	}
}

func TestKeys(t *testing.T) {
	d := Dir(t.TempDir())
	me := Account{os.Getuid(), os.Getgid()}
	made, err := d.LoadKeys(Accounts{me, me, me})
	if err != nil || len(made.Access) < 16 || len(made.Secret) < 32 {
		t.Fatalf("made %v, %v", made, err)
	}
	if info, err := os.Stat(d.AdminKeys()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	again, err := d.LoadKeys(Accounts{me, me, me})
	if err != nil || again != made {
		t.Errorf("other keys the second time: %v", err)
	}
	if err := os.WriteFile(d.AdminKeys(), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.LoadKeys(Accounts{me, me, me}); err == nil {
		t.Error("a file without keys was taken")
	}
}
