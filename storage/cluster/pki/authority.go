package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
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

// Authority signs the certificates of one cluster.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// Open loads the authority in dir, or makes the folder and a new authority where
// there is none or it is about to end. After that, everything that the old one
// has signed is signed anew by Ensure.
func Open(dir string, now time.Time) (*Authority, error) {
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	a := &Authority{dir: dir}
	pair, err := readPair(a.path(caKeyName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = a.make(now)
	case err != nil:
		err = storage.Errorf(storage.Corrupt, "certificate authority: %w; move %s away, and the next start makes a new one", err, dir)
	case !pair.cert.IsCA || now.Before(pair.cert.NotBefore) || now.Add(authorityRest).After(pair.cert.NotAfter):
		err = a.make(now)
	default:
		a.cert, a.key = pair.cert, pair.key
	}
	if err != nil {
		return nil, err
	}
	// It is derived from the other file: a crash between the two leaves the old one.
	want := encodeCert(a.cert)
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
	key, err := newKey()
	if err != nil {
		return err
	}
	id := make([]byte, 4)
	rand.Read(id)
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Holdfast CA " + hex.EncodeToString(id)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key, key)
	if err != nil {
		return fmt.Errorf("make a certificate authority: %w", err)
	}
	b, err := encodePair(pair{cert, key})
	if err == nil {
		err = wholefile.Write(a.path(caKeyName), b, 0o600, nil)
	}
	if err != nil {
		return fmt.Errorf("make a certificate authority: %w", err)
	}
	a.cert, a.key = cert, key
	return nil
}

// newKey is of the curve that all of TLS can do, and the fastest there.
func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // it must be positive
	return new(big.Int).SetBytes(b)
}

func sign(template, parent *x509.Certificate, of, by crypto.Signer) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, of.Public(), by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}
