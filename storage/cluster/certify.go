package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"slices"
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
	for _, name := range []string{masterName, volumeRole, filerName, s3Name, gatewayName} {
		leaves = append(leaves, weedLeaf(name, addresses, weed))
	}
	return append(leaves, pki.Leaf{Name: AdminName, Client: true})
}

// weedLeaf is the certificate of one of weed's roles, or the one that the gateway shows.
func weedLeaf(name string, addresses []string, owner *pki.Owner) pki.Leaf {
	return pki.Leaf{Name: name, Server: true, Client: name != gatewayName, Addresses: addresses, Owner: owner}
}

// clientLeaf is the certificate of one of our own processes.
func clientLeaf(c Client) pki.Leaf { return pki.Leaf{Name: c.Name, Client: true, Owner: c.Owner} }

func (o Options) leaves() []pki.Leaf {
	leaves := o.weedLeaves()
	for _, c := range o.Clients {
		leaves = append(leaves, clientLeaf(c))
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
func allowed(more []Client) map[string][]string {
	weed := []string{masterName, volumeRole, filerName, s3Name, AdminName}
	clients, master := slices.Clone(weed), slices.Clone(weed)
	for _, c := range more {
		clients = append(clients, c.Name)
		if c.Master {
			master = append(master, c.Name)
		}
	}
	return map[string][]string{masterName: master, volumeRole: clients, filerName: clients, s3Name: weed}
}
