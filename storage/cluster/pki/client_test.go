package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// listen serves TLS as the holder of f, and asks clients for a certificate of ca.
// Each client is told the common name and the serial number of its own.
func listen(t *testing.T, f Files, ca string) string {
	t.Helper()
	own, err := tls.LoadX509KeyPair(f.Cert, f.Cert)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if c := c.(*tls.Conn); c.HandshakeContext(t.Context()) == nil {
				who := c.ConnectionState().PeerCertificates[0]
				_, _ = c.Write([]byte(who.Subject.CommonName + " " + who.SerialNumber.String()))
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// ask connects and returns what the server says.
func ask(t *testing.T, config *tls.Config, address string) (string, error) {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: config}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := make([]byte, 200)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func mustTLS(t *testing.T, f Files) *tls.Config {
	t.Helper()
	config, err := f.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestRenewedWithoutARestart: a client takes its renewed certificate for the next
// connection, goes on with the old one while the new one cannot be read, and
// takes a new authority too.
func TestRenewedWithoutARestart(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "pki"), time.Now()
	a := mustOpen(t, dir, now)
	wantSigned(t, a, now, "filer", "node")
	at := listen(t, a.Files("filer"), a.CA())
	config := mustTLS(t, a.Files("node"))
	first, err := ask(t, config, at)
	if err != nil || !strings.HasPrefix(first, "holdfast-node ") {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := ask(t, config, at); err != nil || again != first {
		t.Errorf("%q, %v", again, err)
	}
	if err := os.Remove(a.Files("node").Cert); err != nil {
		t.Fatal(err)
	}
	if again, err := ask(t, config, at); err != nil || again != first {
		t.Errorf("without its file: %q, %v", again, err)
	}
	wantSigned(t, a, now, "node")
	if again, err := ask(t, config, at); err != nil || again == first {
		t.Errorf("renewed: %q, %v", again, err)
	}
	if err := os.Remove(a.path(caKeyName)); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, dir, now)
	wantSigned(t, a, now, "filer", "node")
	if got, err := ask(t, config, listen(t, a.Files("filer"), a.CA())); err != nil {
		t.Errorf("a new authority: %q, %v", got, err)
	}
}

// TestWhoIsNotBelieved: servers of another authority, of another name, and those
// who may only be clients.
func TestWhoIsNotBelieved(t *testing.T) {
	now := time.Now()
	a := mustOpen(t, filepath.Join(t.TempDir(), "pki"), now)
	wantSigned(t, a, now, "filer", "node")
	config := mustTLS(t, a.Files("node"))
	other := foreign(t, "filer")
	if _, err := ask(t, config, listen(t, other.Files("filer"), a.CA())); err == nil {
		t.Error("a server of another authority was believed")
	}
	if _, err := ask(t, config, listen(t, a.Files("node"), a.CA())); err == nil {
		t.Error("a client was believed as a server")
	}
	got, err := ask(t, mustTLS(t, Files{CA: a.CA(), Cert: other.Files("filer").Cert}), listen(t, a.Files("filer"), a.CA()))
	if !storage.Is(err, storage.Denied) || !strings.Contains(err.Error(), other.Files("filer").Cert+" is none of the authority in "+a.CA()) {
		t.Errorf("a client of another authority was told %q, %v", got, err)
	}
}

// TestEnded: who has a certificate that has ended hears which, and what to do.
func TestEnded(t *testing.T) {
	now := time.Now()
	a := mustOpen(t, filepath.Join(t.TempDir(), "pki"), now.Add(-50*day))
	wantSigned(t, a, now.Add(-40*day), "filer", "node")
	if _, err := a.Ensure([]Leaf{server}, now); err != nil {
		t.Fatal(err)
	}
	at := listen(t, a.Files("filer"), a.CA())
	if err := a.Files("node").Check(now); !storage.Is(err, storage.Denied) {
		t.Errorf("%v", err)
	}
	if err := a.Files("filer").Check(now); err != nil {
		t.Error(err)
	}
	config := mustTLS(t, a.Files("node"))
	if _, err := ask(t, config, at); !storage.Is(err, storage.Denied) || !strings.Contains(err.Error(), a.Files("node").Cert+" ended at ") {
		t.Errorf("%v", err)
	}
	wantSigned(t, a, now, "node")
	if _, err := ask(t, config, at); err != nil {
		t.Errorf("renewed: %v", err)
	}
}

// TestNotBegun: a clock that is far behind is told, for the own certificate and for
// that of the server.
func TestNotBegun(t *testing.T) {
	now := time.Now()
	a := mustOpen(t, filepath.Join(t.TempDir(), "pki"), now)
	wantSigned(t, a, now.Add(3*time.Hour), "filer", "node")
	for _, name := range []string{"filer", "node"} {
		err := a.Files(name).Check(now)
		if !storage.Is(err, storage.Denied) || !strings.Contains(err.Error(), a.Files(name).Cert+" begins at ") || !strings.Contains(err.Error(), "set the clock") {
			t.Errorf("%v", err)
		}
	}
	at := listen(t, a.Files("filer"), a.CA())
	if _, err := ask(t, mustTLS(t, a.Files("node")), at); !storage.Is(err, storage.Denied) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("%v", err)
	}
}

func TestFilesAreBothOrNone(t *testing.T) {
	if config, err := (Files{}).TLS(); config != nil || err != nil {
		t.Errorf("without files: %v, %v", config, err)
	}
	if _, err := (Files{CA: "/ca"}).TLS(); !storage.Is(err, storage.Invalid) {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := (Files{CA: "/nowhere/ca", Cert: "/nowhere/cert"}).TLS(); err == nil || !strings.Contains(err.Error(), "/nowhere/ca") {
		t.Errorf("files that are missing: %v", err)
	}
}
