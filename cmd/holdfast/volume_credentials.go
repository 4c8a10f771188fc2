package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/volumes"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// region is what signatures name. SeaweedFS takes any.
const region = "us-east-1"

const credentialsLong = `Print what an S3 client needs to use a volume's bucket: the address, the region,
the bucket and a key pair that opens this bucket alone. For a volume that is a
folder of a bucket there is its prefix too, and the keys open this folder alone.

Whoever has these keys can read and change everything in the volume.`

const credentialsExample = `  eval "$(holdfast volume credentials photos --format env)"
  aws s3 cp picture.jpg "s3://$BUCKET/"

  holdfast volume credentials photos --format json | jq -r .bucket`

// bucketCredentials are the answer, by the names of the JSON format.
type bucketCredentials struct {
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
	Bucket   string `json:"bucket"`
	// Prefix, ending in a slash, is what the keys open; empty for the whole bucket.
	Prefix string `json:"prefix,omitempty"`
	Access string `json:"access_key_id"`
	Secret string `json:"secret_access_key"`
	// CA is the file with the authority of an https endpoint.
	CA string `json:"ca_bundle,omitempty"`
}

func newVolumeCredentials(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "credentials NAME",
		Aliases: []string{"creds"},
		Short:   "Print the S3 address and keys of a volume",
		Long:    credentialsLong,
		Example: credentialsExample,
		Args:    exactly("NAME"),
	}
	form := cmd.Flags().String("format", "env", "env (lines for a shell to eval) or json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *form != "env" && *form != "json" {
			return fmt.Errorf("%q is no format: env and json are", *form)
		}
		return a.withVolumes(func(c *volumes.Client) error {
			v, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			creds, err := a.readCredentials(cmd.Context(), storage.VolumeID(v.ID))
			if err != nil {
				return err
			}
			if *form == "json" {
				return writeJSON(a.stdout, creds)
			}
			_, err = fmt.Fprint(a.stdout, creds.env())
			return err
		})
	}
	return cmd
}

// readCredentials takes them from the volume's record. CSI has no call for it,
// and a secret in a volume's context would show in every listing.
func (a *app) readCredentials(ctx context.Context, id storage.VolumeID) (c bucketCredentials, err error) {
	dir, err := a.dir()
	if err != nil {
		return c, err
	}
	status, err := stack.ReadStatus(dir)
	if err != nil {
		return c, err
	}
	files := pki.FilesIn(dir.PKI(), cluster.AdminName)
	if err := files.Check(time.Now()); err != nil {
		return c, err
	}
	secret, err := files.TLS()
	if err != nil {
		return c, err
	}
	client, err := seaweed.Open(ctx, seaweed.Options{Filer: status.Endpoints.Filer, TLS: secret})
	if err != nil {
		return c, err
	}
	defer func() { _ = client.Close() }()
	record, err := client.GetRecord(ctx, id)
	if err != nil {
		return c, err
	}
	if record.Phase == storage.Archived {
		return c, fmt.Errorf("volume %s is archived: its keys are ended; make it again with the same parameters to get new ones", id)
	}
	prefix := string(record.Prefix)
	if prefix != "" {
		prefix += "/"
	}
	ca := ""
	if strings.HasPrefix(status.Endpoints.S3, "https:") {
		ca = files.CA
	}
	return bucketCredentials{
		CA:       ca,
		Endpoint: status.Endpoints.S3, Region: region, Bucket: string(record.Bucket), Prefix: prefix,
		Access: record.Keys.Access, Secret: record.Keys.Secret,
	}, nil
}

// env writes the credentials as a shell reads them. Both names of the region are
// set: the command line tools of AWS and the SDKs differ in what they look at.
func (c bucketCredentials) env() string {
	var b strings.Builder
	for _, v := range [][2]string{
		{"AWS_ENDPOINT_URL", c.Endpoint},
		{"AWS_ACCESS_KEY_ID", c.Access},
		{"AWS_SECRET_ACCESS_KEY", c.Secret},
		{"AWS_REGION", c.Region},
		{"AWS_DEFAULT_REGION", c.Region},
		{"BUCKET", c.Bucket},
		{"PREFIX", c.Prefix},
		{"AWS_CA_BUNDLE", c.CA},
	} {
		if v[1] == "" {
			continue // no prefix, no TLS
		}
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	return b.String()
}

// shellQuote makes one word of s for any POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
