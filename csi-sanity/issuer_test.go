package csisanity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// issuer signs certificates as an authority does: a stranger, or an
// installation's own, whose key only its owner can read.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return &issuer{cert, key}, err
}

// readIssuer is the authority of an installation.
func readIssuer(in *installation) (*issuer, error) {
	path := filepath.Join(in.dir, "pki", "ca.key")
	c, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return nil, err
	}
	return &issuer{c.Leaf, c.PrivateKey.(crypto.Signer)}, nil
}

// leaf signs a certificate that could be anybody's of that name.
func (i *issuer) leaf(name string, ends time.Time) (tls.Certificate, error) {
	b, err := i.pem(name, ends)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(b, b)
}

func (i *issuer) pem(name string, ends time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: ends.Add(-24 * time.Hour), NotAfter: ends,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"weed.holdfast", "localhost"},
	}, i.cert, key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	if err == nil {
		err = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: raw})
	}
	return b.Bytes(), err
}

// certificate is where an installation keeps that of a holder.
func (in *installation) certificate(name string) string {
	return filepath.Join(in.dir, "pki", name+".pem")
}

// replace puts another certificate in the place of a holder's, for its owner.
func (i *issuer) replace(in *installation, name string, ends time.Time) error {
	path := in.certificate(name)
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return err
	}
	b, err := i.pem("holdfast-"+name, ends)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Chown(path+".new", int(st.Uid), int(st.Gid))
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	return err
}
