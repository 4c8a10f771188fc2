package cluster

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// securityName is weed's configuration of TLS and tokens, in the folder conf.
const securityName = "security.toml"

// tokenLife outlives a write: a call of ours ends after half of it, and a write
// begins with an assignment that is at most seconds old.
const tokenLife = time.Minute

// tokenSections are those of security.toml that hold a key. Reads from volume servers
// have none, and need no token: each would need a call to the master that takes as long
// as the read of a small chunk, and whoever has the certificate that the volume servers
// ask for is let into the filer as well, where tokens come from.
var tokenSections = []string{"jwt.signing", "jwt.filer_signing", "jwt.filer_signing.read"}

// newTokens makes the keys that tokens are signed with.
func newTokens() map[string]string {
	keys := make(map[string]string, len(tokenSections))
	for _, section := range tokenSections {
		keys[section] = rand.Text() + rand.Text()
	}
	return keys
}

// security is what stands in security.toml.
type security struct {
	// tokens are the keys of tokenSections. All processes need the same.
	tokens map[string]string
	// allowed are the names that each role lets in.
	allowed map[string][]string
	// ca is the file with the authority's certificate.
	ca string
	// cert is the file with a role's key and certificate.
	cert func(role string) string
}

func (s security) toml() []byte {
	var b strings.Builder
	section := func(name string, pairs ...string) {
		fmt.Fprintf(&b, "[%s]\n", name)
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&b, "%s = %s\n", pairs[i], pairs[i+1])
		}
	}
	text := func(s string) string { return fmt.Sprintf("%q", s) }
	for _, name := range tokenSections {
		section(name, "key", text(s.tokens[name]), "expires_after_seconds", fmt.Sprint(int(tokenLife.Seconds())))
	}
	files := func(role string) []string {
		cert := text(s.cert(role))
		return []string{"cert", cert, "key", cert}
	}
	ca := []string{"ca", text(s.ca)}
	section("grpc", ca...)
	for _, role := range []string{masterName, volumeRole, filerName, s3Name} {
		var names []string
		for _, a := range s.allowed[role] {
			names = append(names, pki.CommonName(a))
		}
		section("grpc."+role, append(files(role), "allowed_commonNames", text(strings.Join(names, ",")))...)
	}
	// The gateway's calls of the filer, and what any of the processes asks of a
	// volume server over HTTP.
	section("grpc.client", files(s3Name)...)
	section("https.client", append(append(files(s3Name), ca...), "enabled", "true")...)
	for _, role := range []string{masterName, volumeRole, filerName} {
		section("https."+role, append(files(role), ca...)...)
	}
	return []byte(b.String())
}

// security is that of a cluster on one machine. The token keys are made anew for each
// life of it, since all who need one read this file at its start.
func (o Options) security() []byte {
	if o.PKI == "" {
		return []byte(none)
	}
	return security{
		tokens:  newTokens(),
		allowed: allowed(o.Clients),
		ca:      pki.FilesIn(o.PKI, AdminName).CA,
		cert:    func(role string) string { return pki.FilesIn(o.PKI, role).Cert },
	}.toml()
}
