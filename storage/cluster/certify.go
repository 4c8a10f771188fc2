package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// This file says who gets a certificate, and keeps them from ending.

const (
	// AdminName is the holder that may speak to everything: this process, and the
	// commands of whoever owns the cluster.
	AdminName = "admin"
	// gatewayName is the certificate that the gateway shows to S3 clients, where it
	// speaks TLS. It opens nothing.
	gatewayName = "gateway"

	// certificateEvery is how often certificates are looked at: by us, for those
	// that are about to end, and by weed, for those that were renewed. It is seconds
	// and not hours so that a clock that jumps, or a machine that slept for weeks, is
	// noticed before a person does.
	certificateEvery = 10 * time.Second
)

// weedLeaves are the certificates of weed's own processes, and AdminName's.
func (o Options) weedLeaves() []pki.Leaf {
	weed := (*pki.Owner)(o.User)
	addresses := []string{"localhost", o.IP}
	var leaves []pki.Leaf
	for _, name := range []string{masterName, volumeRole, filerName, s3Name} {
		leaves = append(leaves, pki.Leaf{Name: name, Server: true, Client: true, Addresses: addresses, Owner: weed})
	}
	return append(leaves,
		pki.Leaf{Name: gatewayName, Server: true, Addresses: addresses, Owner: weed},
		pki.Leaf{Name: AdminName, Client: true},
	)
}

func (o Options) leaves() []pki.Leaf {
	leaves := o.weedLeaves()
	for _, c := range o.Clients {
		leaves = append(leaves, pki.Leaf{Name: c.Name, Client: true, Owner: c.Owner})
	}
	return leaves
}

// admin is AdminName's files; empty ones in an open cluster.
func (o Options) admin() pki.Files {
	if o.PKI == "" {
		return pki.Files{}
	}
	return pki.FilesIn(o.PKI, AdminName)
}

// Files are what lets the holder of that name in: AdminName, or one of the
// clients. In an open cluster they are empty.
func (c *Cluster) Files(name string) pki.Files {
	if c.opts.PKI == "" {
		return pki.Files{}
	}
	return pki.FilesIn(c.opts.PKI, name)
}

// TLS is what AdminName speaks to the cluster with; nil in an open one.
func (c *Cluster) TLS() (*tls.Config, error) { return c.opts.admin().TLS() }

// Certify makes the authority and the certificates that are missing, and renews
// those that are about to end. Start does it too; call it before, when clients
// are to be started before the cluster. In an open cluster it does nothing.
func (c *Cluster) Certify() error {
	if c.opts.PKI == "" {
		return nil
	}
	c.certifying.Lock()
	defer c.certifying.Unlock()
	now := time.Now()
	if c.authority == nil {
		a, err := pki.Open(c.opts.PKI, now)
		if err != nil {
			return fileErrorOf(err)
		}
		c.authority = a
	}
	signed, err := c.authority.Ensure(c.opts.leaves(), now)
	if len(signed) > 0 {
		c.opts.Logger.Info("certificates signed", "name", signed)
	}
	return fileErrorOf(err)
}

// fileErrorOf classifies what is an error of the file system, and leaves ours.
func fileErrorOf(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return fileError(err)
	}
	return err
}

// renew keeps the certificates alive until ctx ends.
func (c *Cluster) renew(ctx context.Context) {
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.Certify()
		if err != nil && !failing {
			c.opts.Logger.Error("certificates cannot be renewed", "err", err)
		}
		failing = err != nil
	}
}

// allowed are the names that each of weed's gRPC services lets in: who has
// business there.
func (o Options) allowed() map[string][]string {
	weed := []string{masterName, volumeRole, filerName, s3Name, AdminName}
	clients, master := slices.Clone(weed), slices.Clone(weed)
	for _, c := range o.Clients {
		clients = append(clients, c.Name)
		if c.Master {
			master = append(master, c.Name)
		}
	}
	return map[string][]string{masterName: master, volumeRole: clients, filerName: clients, s3Name: weed}
}

// securityName is weed's configuration of TLS and tokens, in the folder conf.
const securityName = "security.toml"

// tokenLife outlives a write: a call of ours ends after half of it, and a write
// begins with an assignment that is at most seconds old.
const tokenLife = time.Minute

// security is the content of security.toml. The token keys are made anew for each
// life of the cluster, since all who need one read this file at its start.
//
// Reads from volume servers need no token: each would need a call to the master
// that takes as long as the read of a small chunk, and whoever has the certificate
// that the volume servers ask for is let into the filer as well, where tokens come
// from.
func (o Options) security() []byte {
	if o.PKI == "" {
		return []byte(none)
	}
	var b strings.Builder
	section := func(name string, pairs ...string) {
		fmt.Fprintf(&b, "[%s]\n", name)
		for i := 0; i < len(pairs); i += 2 {
			fmt.Fprintf(&b, "%s = %s\n", pairs[i], pairs[i+1])
		}
	}
	text := func(s string) string { return fmt.Sprintf("%q", s) }
	for _, name := range []string{"jwt.signing", "jwt.filer_signing", "jwt.filer_signing.read"} {
		section(name, "key", text(newToken()), "expires_after_seconds", fmt.Sprint(int(tokenLife.Seconds())))
	}
	files := func(name string) []string {
		f := pki.FilesIn(o.PKI, name)
		return []string{"cert", text(f.Cert), "key", text(f.Cert)}
	}
	ca := []string{"ca", text(pki.FilesIn(o.PKI, AdminName).CA)}
	section("grpc", ca...)
	allowed := o.allowed()
	for _, name := range []string{masterName, volumeRole, filerName, s3Name} {
		var names []string
		for _, a := range allowed[name] {
			names = append(names, pki.CommonName(a))
		}
		section("grpc."+name, append(files(name), "allowed_commonNames", text(strings.Join(names, ",")))...)
	}
	// The gateway's calls of the filer, and what any of the processes asks of a
	// volume server over HTTP.
	section("grpc.client", files(s3Name)...)
	section("https.client", append(append(files(s3Name), ca...), "enabled", "true")...)
	for _, name := range []string{masterName, volumeRole, filerName} {
		section("https."+name, append(files(name), ca...)...)
	}
	return []byte(b.String())
}
