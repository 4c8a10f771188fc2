package main

import (
	"github.com/spf13/pflag"

	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// tlsFiles are the flags of what lets a service into a closed cluster.
type tlsFiles struct{ pki.Files }

func (f *tlsFiles) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.CA, "tls-ca", "", "file with the certificate of the cluster's authority (default: a cluster without TLS)")
	flags.StringVar(&f.Cert, "tls-cert", "", "file with this service's key and certificate; it is read again when it has changed")
}
