package csisanity

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
)

// TestS3OverTLS: with --s3-tls the gateway speaks TLS, the credentials name the
// authority that its certificate is of, and the next up remembers it.
func TestS3OverTLS(t *testing.T) {
	in := startState(t)
	in.must(t, "volume", "create", "photos", "--size", "1Gi")
	in.fails(t, []string{"up", "--s3-tls"}, "--s3-tls", "holdfast down")
	in.mustDown(t)
	in.must(t, "up", "--s3-tls")
	in.mustDown(t)
	in.up(t)
	c := unmarshal[struct {
		Endpoint string
		CA       string `json:"ca_bundle"`
	}](t, in.must(t, "volume", "credentials", "photos", "--format", "json"))
	b, err := os.ReadFile(c.CA)
	if err != nil || !strings.HasPrefix(c.Endpoint, "https://") {
		t.Fatalf("endpoint %q, authority %q, %v", c.Endpoint, c.CA, err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	if err := callHTTP(t.Context(), c.Endpoint+"/", &tls.Config{RootCAs: pool}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("an unsigned request over TLS: %v, want 403", err)
	}
	if !strings.Contains(in.must(t, "volume", "credentials", "photos"), "AWS_CA_BUNDLE='"+c.CA+"'") {
		t.Error("the lines for a shell do not name the authority")
	}
	// The controller speaks TLS too.
	in.must(t, "volume", "create", "more", "--size", "1Gi")
}
