package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Signer is the authority itself: its key and its certificate. It touches no file,
// so it serves who keeps them elsewhere as well. Its methods may be called at once.
type Signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewSigner makes the key of a new authority.
func NewSigner(now time.Time) (*Signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
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
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	return &Signer{cert, key}, nil
}

// ParseSigner reads what PEM has written. Whether it is an authority, and one for
// today, is Ends' to say.
func ParseSigner(text []byte) (*Signer, error) {
	p, err := parseKeyPair(text)
	if err != nil {
		return nil, err
	}
	return &Signer{p.cert, p.key}, nil
}

// PEM is the key with its certificate.
func (s *Signer) PEM() ([]byte, error) { return encodePair(pair{s.cert, s.key}) }

// CertPEM is the certificate alone, which is for everybody.
func (s *Signer) CertPEM() []byte { return encodeCert(s.cert) }

// Ends reports whether it is time for another authority: this one is none, has not
// begun, or ends within a year.
func (s *Signer) Ends(now time.Time) bool {
	return !s.cert.IsCA || now.Before(s.cert.NotBefore) || now.Add(authorityRest).After(s.cert.NotAfter)
}

// NotAfter is the authority's last moment.
func (s *Signer) NotAfter() time.Time { return s.cert.NotAfter }

// Good reports whether text, a key with its certificate, is the leaf as it shall be,
// and has time left.
func (s *Signer) Good(l Leaf, text []byte, now time.Time) bool {
	have, err := parseKeyPair(text)
	if err != nil || have.cert.CheckSignatureFrom(s.cert) != nil {
		return false
	}
	want := l.template(now)
	dns, ips := have.cert.DNSNames, have.cert.IPAddresses
	return !now.Before(have.cert.NotBefore) && now.Add(leafRest).Before(have.cert.NotAfter) &&
		have.cert.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(have.cert.ExtKeyUsage, want.ExtKeyUsage) && slices.Equal(dns, want.DNSNames) &&
		slices.EqualFunc(ips, want.IPAddresses, net.IP.Equal)
}

// Sign makes a new key for the leaf, and its certificate: both, as PEM.
func (s *Signer) Sign(l Leaf, now time.Time) ([]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := l.template(now)
	if template.NotAfter.After(s.cert.NotAfter) {
		template.NotAfter = s.cert.NotAfter
	}
	cert, err := sign(template, s.cert, key, s.key)
	if err != nil {
		return nil, err
	}
	return encodePair(pair{cert, key})
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
