package pki

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

const day = 24 * time.Hour

var (
	server = Leaf{Name: "filer", Server: true, Client: true, Addresses: []string{"127.0.0.1", "localhost"}}
	client = Leaf{Name: "node", Client: true}
)

func mustOpen(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantSigned checks which of server and client are signed anew.
func wantSigned(t *testing.T, a *Authority, now time.Time, want ...string) {
	t.Helper()
	signed, err := a.Ensure([]Leaf{server, client}, now)
	if err != nil || !slices.Equal(signed, want) {
		t.Errorf("signed %q, %v; want %q", signed, err, want)
	}
}

// TestRenewal: a certificate is signed anew with a third of its life left, and not
// before.
func TestRenewal(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "pki"), time.Now()
	a := mustOpen(t, dir, now)
	wantSigned(t, a, now, "filer", "node")
	wantSigned(t, a, now)
	a = mustOpen(t, dir, now.Add(19*day))
	wantSigned(t, a, now.Add(19*day))
	wantSigned(t, a, now.Add(21*day), "filer", "node")
	wantSigned(t, a, now.Add(22*day))
	ends, err := Ends(dir)
	if err != nil || len(ends) != 3 {
		t.Fatalf("%v, %v", ends, err)
	}
	for i, want := range []End{{"ca", now.Add(10 * 365 * day)}, {"filer", now.Add(51 * day)}, {"node", now.Add(51 * day)}} {
		if got := ends[i]; got.Name != want.Name || got.At.Sub(want.At).Abs() > time.Second {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if over := Ended(ends, now.Add(52*day)); len(over) != 2 || over[0].Name != "filer" {
		t.Errorf("ended: %+v", over)
	}
	// A clock that was years ahead.
	wantSigned(t, a, now, "filer", "node")
}

// TestWhatIsNotAsItShallBe is signed anew.
func TestWhatIsNotAsItShallBe(t *testing.T) {
	now := time.Now()
	a := mustOpen(t, filepath.Join(t.TempDir(), "pki"), now)
	wantSigned(t, a, now, "filer", "node")
	file := a.Files("node").Cert
	for name, spoil := range map[string]func() error{
		"missing":    func() error { return os.Remove(file) },
		"open":       func() error { return os.Chmod(file, 0o644) },
		"cut off":    func() error { return os.Truncate(file, 100) },
		"another's":  func() error { return os.Rename(a.Files("filer").Cert, file) },
		"a symlink":  func() error { return errorsOf(os.Rename(file, file+".x"), os.Symlink(file+".x", file)) },
		"the CA's":   func() error { return copyFile(a.path(caKeyName), file) },
		"of another": func() error { return copyFile(foreign(t, "node").Files("node").Cert, file) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		signed, err := a.Ensure([]Leaf{server, client}, now)
		if err != nil || !slices.Contains(signed, "node") {
			t.Errorf("%s: signed %q, %v", name, signed, err)
		}
		if info, err := os.Lstat(file); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	moved := server
	moved.Addresses = []string{"10.0.0.1"}
	if signed, err := a.Ensure([]Leaf{moved}, now); err != nil || len(signed) != 1 {
		t.Errorf("another address: signed %q, %v", signed, err)
	}
	more := client
	more.Server = true
	if signed, err := a.Ensure([]Leaf{more}, now); err != nil || len(signed) != 1 {
		t.Errorf("another use: signed %q, %v", signed, err)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// foreign is another authority, with a certificate for name.
func foreign(t *testing.T, name string) *Authority {
	t.Helper()
	a := mustOpen(t, filepath.Join(t.TempDir(), "pki"), time.Now())
	if _, err := a.Ensure([]Leaf{{Name: name, Client: true, Server: true}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAuthorityIsKept until its last year; then a new one signs everything anew.
func TestAuthorityIsKept(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "pki"), time.Now()
	a := mustOpen(t, dir, now)
	wantSigned(t, a, now, "filer", "node")
	later := now.Add(8 * 365 * day)
	again := mustOpen(t, dir, later)
	if !again.cert.Equal(a.cert) {
		t.Error("a new authority, without need")
	}
	wantSigned(t, again, later, "filer", "node")
	wantSigned(t, again, later)
	later = now.Add(9*365*day + day)
	last := mustOpen(t, dir, later)
	if last.cert.Equal(a.cert) {
		t.Error("an authority that is about to end was kept")
	}
	wantSigned(t, last, later, "filer", "node")
	for name, want := range map[string]fs.FileMode{caCertName: 0o644, caKeyName: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestAuthorityAfterACrash: between its two files only the key's counts.
func TestAuthorityAfterACrash(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "pki"), time.Now()
	a := mustOpen(t, dir, now)
	if err := os.Remove(a.CA()); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir, now)
	if b, err := os.ReadFile(again.CA()); err != nil || string(b) != string(encodeCert(a.cert)) {
		t.Errorf("%v", err)
	}
	if err := os.Truncate(a.path(caKeyName), 50); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, now); !storage.Is(err, storage.Corrupt) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a damaged key: %v", err)
	}
}
