package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Files are what lets a process in: the authority's certificate, and a key with
// its certificate in one file. Both empty mean a cluster without TLS.
type Files struct{ CA, Cert string }

// Validate says what is wrong with f. It reads nothing.
func (f Files) Validate() error {
	if (f.CA == "") != (f.Cert == "") {
		return storage.Errorf(storage.Invalid, "certificate %q of authority %q: both are needed, or neither for a cluster without TLS", f.Cert, f.CA)
	}
	return nil
}

// Check says whether the certificate can be read, has begun and has not ended: for a command,
// which is not there any more when it is renewed.
func (f Files) Check(now time.Time) error {
	p, err := readPair(f.Cert)
	if err != nil {
		return fmt.Errorf("certificate file: %w", err)
	}
	return alive(f.Cert, p.cert, now)
}

// TLS is the configuration of a client that holds f, nil without files. It reads
// both files again when they have changed: connections made from then on use the
// new ones.
func (f Files) TLS() (*tls.Config, error) {
	if err := f.Validate(); err != nil || f.CA == "" {
		return nil, err
	}
	roots := &watched[*x509.CertPool]{path: f.CA, parse: parsePool}
	own := &watched[*tls.Certificate]{path: f.Cert, parse: parsePair}
	if _, err := roots.get(); err != nil {
		return nil, err
	}
	if _, err := own.get(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := own.get()
			if err == nil {
				err = alive(f.Cert, c.Leaf, time.Now())
			}
			if err == nil {
				err = f.issued(c, roots)
			}
			return c, err
		},
		// RootCAs cannot change, so the check is done here, with no less in it.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			pool, err := roots.get()
			if err != nil {
				return err
			}
			return verify(s, pool)
		},
		// Chunks are large, and their connections are kept.
		DynamicRecordSizingDisabled: true,
	}, nil
}

func verify(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return storage.Errorf(storage.Denied, "the server has no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: ServerName, Roots: roots, Intermediates: between})
	if err != nil {
		hint := ""
		if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired {
			hint = " (is the clock of this machine right?)"
		}
		return storage.Errorf(storage.Denied, "certificate of the server (%s): %w%s", s.PeerCertificates[0].Subject.CommonName, err, hint)
	}
	return nil
}

// issued says whether the authority has signed the certificate. The server looks too,
// and in TLS 1.3 what it thinks comes too late for many a client: a broken connection is
// all that is seen.
func (f Files) issued(c *tls.Certificate, roots *watched[*x509.CertPool]) error {
	pool, err := roots.get()
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, raw := range c.Certificate[1:] {
		if more, err := x509.ParseCertificate(raw); err == nil {
			between.AddCert(more)
		}
	}
	_, err = c.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return storage.Errorf(storage.Denied, "the certificate in %s is none of the authority in %s: both have to be of the cluster that is asked (%w)", f.Cert, f.CA, err)
	}
	return nil
}

// alive says whether a certificate is to be used now.
func alive(path string, c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return storage.Errorf(storage.Denied, "the certificate in %s ended at %s; holdfast up renews it (the clock of this machine says %s)",
			path, c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return storage.Errorf(storage.Denied, "the certificate in %s begins at %s, and the clock of this machine says %s: set the clock",
			path, c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func parsePool(path string, b []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, storage.Errorf(storage.Corrupt, "%s holds no certificate", path)
	}
	return pool, nil
}

func parsePair(path string, b []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, storage.Errorf(storage.Corrupt, "%s: %w", path, err)
	}
	return &c, nil
}

// watched is what a file holds, read again when the file is another one.
type watched[T any] struct {
	path  string
	parse func(path string, b []byte) (T, error)

	mu struct {
		sync.Mutex
		stamp stamp
		value T
	}
}

// stamp tells two states of a file apart.
type stamp struct {
	inode uint64
	size  int64
	mtime syscall.Timespec
}

// get returns the file's value. While the file cannot be read, what was read
// before goes on being used.
func (w *watched[T]) get() (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var st syscall.Stat_t
	err := syscall.Stat(w.path, &st)
	now := stamp{st.Ino, st.Size, st.Mtim}
	if err == nil && now == w.mu.stamp {
		return w.mu.value, nil
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(w.path)
	}
	var value T
	if err == nil {
		value, err = w.parse(w.path, b)
	}
	switch {
	case err == nil:
		w.mu.stamp, w.mu.value = now, value
	case w.mu.stamp == stamp{}:
		return value, fmt.Errorf("certificate file %s: %w", w.path, err)
	}
	return w.mu.value, nil
}
