package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

const (
	// authorityLife is long, since a new authority is made between two lives of the
	// cluster only: weed reads it once, at its start.
	authorityLife = 10 * 365 * 24 * time.Hour
	// authorityRest: with less left at a start, a new one is made. No cluster is
	// expected to run for longer than a year.
	authorityRest = 365 * 24 * time.Hour
	// clockSkew is how far a machine's clock may be behind.
	clockSkew = time.Hour
)

const (
	caCertName = "ca.crt"
	caKeyName  = "ca.key"
)

// Authority signs the certificates of one cluster, and keeps them in a folder.
type Authority struct {
	*Signer
	dir string
}

// Open loads the authority in dir, or makes the folder and a new authority where
// there is none or it is about to end. After that, everything that the old one
// has signed is signed anew by Ensure.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	a := &Authority{dir: dir}
	text, err := os.ReadFile(a.path(caKeyName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = a.make(now)
	case err == nil:
		if a.Signer, err = ParseSigner(text); err != nil {
			return nil, storage.Errorf(storage.Corrupt, "certificate authority: %s: %w; move %s away, and the next start makes a new one", a.path(caKeyName), err, dir)
		}
		if a.Ends(now) {
			err = a.make(now)
		}
	default:
		err = storage.Errorf(storage.Corrupt, "certificate authority: %w; move %s away, and the next start makes a new one", err, dir)
	}
	if err != nil {
		return nil, err
	}
	// It is derived from the other file: a crash between the two leaves the old one.
	want := a.CertPEM()
	if have, err := os.ReadFile(a.CA()); err == nil && string(have) == string(want) {
		return a, nil
	}
	if err := wholefile.Write(a.CA(), want, 0o644, nil); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}

// CA is the path of the authority's certificate.
func (a *Authority) CA() string { return a.path(caCertName) }

// Files of the holder with that name.
func (a *Authority) Files(name string) Files { return FilesIn(a.dir, name) }

// FilesIn is where an authority in dir keeps the files of a holder.
func FilesIn(dir, name string) Files {
	return Files{CA: filepath.Join(dir, caCertName), Cert: filepath.Join(dir, name+".pem")}
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *Authority) make(now time.Time) error {
	signer, err := NewSigner(now)
	if err != nil {
		return err
	}
	b, err := signer.PEM()
	if err == nil {
		err = wholefile.Write(a.path(caKeyName), b, 0o600, nil)
	}
	if err != nil {
		return fmt.Errorf("make a certificate authority: %w", err)
	}
	a.Signer = signer
	return nil
}
