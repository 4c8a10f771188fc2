package s3secret

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"

	"github.com/holdfast-csi/holdfast/storage"
)

// Endpoint is where pods find the S3 gateway.
type Endpoint struct {
	// URL such as http://holdfast-s3.holdfast-system.svc:8333.
	URL string
	// Region that signatures name; the gateway takes any.
	Region string
	// CA is the certificate of the authority of an https endpoint, PEM; empty when
	// clients know it anyway.
	CA []byte
}

// Validate says whether clients could use it.
func (e Endpoint) Validate() error {
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return storage.Errorf(storage.Invalid, "S3 endpoint %q: http://host:port or https://host:port is needed, and nothing behind it", redacted(e.URL))
	}
	if e.Region == "" {
		return storage.Errorf(storage.Invalid, "S3 region: empty; any name is allowed, such as us-east-1")
	}
	if len(e.CA) > 0 {
		block, _ := pem.Decode(e.CA)
		if block == nil || block.Type != "CERTIFICATE" {
			return storage.Errorf(storage.Invalid, "S3 authority: no certificate in PEM")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return storage.Errorf(storage.Invalid, "S3 authority: %w", err)
		}
	}
	return nil
}

// redacted keeps the password of a URL that should not have one out of the error.
func redacted(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return "(not a URL)"
}

// hostPort are what some clients want apart.
func (e Endpoint) hostPort() (host, port string) {
	u, err := url.Parse(e.URL)
	if err != nil { // Validate has parsed it
		return "", ""
	}
	if host, port, err = net.SplitHostPort(u.Host); err == nil {
		return host, port
	}
	return u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// content is what a Secret holds, by the names that the users of other systems know.
// Which name is whose: AWS_* of the SDKs and the command line of AWS, which differ in
// which region and which endpoint they read; BUCKET_* of the bucket claims of Rook and
// NooBaa; BucketInfo of COSI v1alpha1, COSI_* of v1alpha2; the four in camel case of
// Cozystack. BUCKET_PREFIX is ours: what the keys open of a shared bucket, with a slash
// at the end, and empty when they open all of it.
func content(r *storage.Record, e Endpoint) (map[string][]byte, error) {
	info, err := bucketInfo(r, e)
	if err != nil {
		return nil, err
	}
	host, port := e.hostPort()
	prefix := string(r.Prefix)
	if prefix != "" {
		prefix += "/"
	}
	data := map[string][]byte{}
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID":     r.Keys.Access,
		"AWS_SECRET_ACCESS_KEY": r.Keys.Secret,
		"AWS_REGION":            e.Region,
		"AWS_DEFAULT_REGION":    e.Region,
		"AWS_ENDPOINT_URL":      e.URL,
		"AWS_ENDPOINT_URL_S3":   e.URL,

		"BUCKET_NAME":   string(r.Bucket),
		"BUCKET_PREFIX": prefix,
		"BUCKET_HOST":   host,
		"BUCKET_PORT":   port,
		"BUCKET_REGION": e.Region,

		"BucketInfo": string(info),

		"COSI_PROTOCOL":             "S3",
		"COSI_S3_BUCKET_ID":         string(r.Bucket),
		"COSI_S3_ENDPOINT":          e.URL,
		"COSI_S3_REGION":            e.Region,
		"COSI_S3_ADDRESSING_STYLE":  "path",
		"COSI_S3_ACCESS_KEY_ID":     r.Keys.Access,
		"COSI_S3_ACCESS_SECRET_KEY": r.Keys.Secret,

		"accessKey":  r.Keys.Access,
		"secretKey":  r.Keys.Secret,
		"endpoint":   e.URL,
		"bucketName": string(r.Bucket),
	} {
		data[key] = []byte(value)
	}
	if len(e.CA) > 0 {
		data["COSI_CERTIFICATE_AUTHORITY"] = e.CA
		data["ca.crt"] = e.CA // to be mounted: AWS_CA_BUNDLE names a file
	}
	return data, nil
}

// bucketInfo is COSI's v1alpha1 form: one JSON document.
func bucketInfo(r *storage.Record, e Endpoint) ([]byte, error) {
	type secretS3 struct {
		Endpoint        string `json:"endpoint"`
		Region          string `json:"region"`
		AccessKeyID     string `json:"accessKeyID"`
		AccessSecretKey string `json:"accessSecretKey"`
	}
	type spec struct {
		BucketName         string    `json:"bucketName"`
		AuthenticationType string    `json:"authenticationType"`
		SecretS3           secretS3  `json:"secretS3"`
		SecretAzure        *struct{} `json:"secretAzure"`
		Protocols          []string  `json:"protocols"`
	}
	var info struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec spec `json:"spec"`
	}
	info.Metadata.Name = string(r.ID)
	info.Spec = spec{
		BucketName: string(r.Bucket), AuthenticationType: "KEY", Protocols: []string{"s3"},
		SecretS3: secretS3{e.URL, e.Region, r.Keys.Access, r.Keys.Secret},
	}
	b, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("BucketInfo of volume %s: %w", r.ID, err)
	}
	return b, nil
}
