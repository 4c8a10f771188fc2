package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

const (
	// leafLife is a month: nothing revokes a certificate, so what is stolen is good
	// for as long as it lives.
	leafLife = 30 * 24 * time.Hour
	// leafRest: with less left, it is renewed. So a person has ten days to notice
	// that renewing fails, and a machine that was off for longer renews at its start.
	leafRest = leafLife / 3
)

// ServerName is the name that every server's certificate has beside its
// addresses. Clients look for it, and not for an address: which server is asked
// is the filer's word, that it is one of ours the authority's.
const ServerName = "weed.holdfast"

// CommonName is the name in the certificate of a holder, by which servers tell
// the holders apart.
func CommonName(name string) string { return "holdfast-" + name }

// Leaf is a certificate as it shall be.
type Leaf struct {
	// Name of the holder, and of its file.
	Name string
	// Server and Client are what it may be used as.
	Server, Client bool
	// Addresses are further names of a server: IP addresses or DNS names.
	Addresses []string
	// Owner of the file; nil for us.
	Owner *Owner
}

// Owner of a holder's file.
type Owner = wholefile.Owner

// Ensure signs those leaves that are missing, about to end, or not as they shall
// be. It returns their names.
func (a *Authority) Ensure(leaves []Leaf, now time.Time) (signed []string, err error) {
	for _, l := range leaves {
		if a.good(l, now) {
			continue
		}
		if err := a.sign(l, now); err != nil {
			return signed, fmt.Errorf("certificate of %s: %w", l.Name, err)
		}
		signed = append(signed, l.Name)
	}
	return signed, nil
}

// good reports whether the leaf's file can stay.
func (a *Authority) good(l Leaf, now time.Time) bool {
	path := a.Files(l.Name).Cert
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || l.Owner != nil && (st.Uid != l.Owner.UID || st.Gid != l.Owner.GID) {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && a.Good(l, text, now)
}

func (a *Authority) sign(l Leaf, now time.Time) error {
	text, err := a.Sign(l, now)
	if err != nil {
		return err
	}
	return wholefile.Write(a.Files(l.Name).Cert, text, 0o600, l.Owner)
}

func (l Leaf) template(now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: CommonName(l.Name)},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	if l.Client {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if !l.Server {
		return t
	}
	t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	t.DNSNames = []string{ServerName}
	for _, address := range l.Addresses {
		if ip := net.ParseIP(address); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, address)
		}
	}
	return t
}
