package s3client

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes the client. The SDK's config package was left out: it reads
// environment variables and files of the user, and a driver must never pick up
// keys that nobody gave it.

const (
	// defaultRegion is what SeaweedFS signs for.
	defaultRegion = "us-east-1"
	// defaultAttempt bounds one request: a gateway whose filer is being restarted
	// answers within 15 s.
	defaultAttempt = 15 * time.Second
	// defaultAttempts with the pauses between them ride out the restart of a
	// gateway or a filer (0.5 s); what takes longer is the caller's to repeat.
	defaultAttempts = 5
	// removal bounds one deletion of a bucket: the gateway removes every entry
	// before it answers.
	removal = 5 * time.Minute
	// dialTimeout is short: the endpoint is in the same cluster.
	dialTimeout = 5 * time.Second
)

// Options say where the endpoint is and who asks. Endpoint and Keys are needed;
// the rest works as zero.
type Options struct {
	// Endpoint is a URL such as http://127.0.0.1:8333.
	Endpoint string
	// Region to sign for, us-east-1 unless set.
	Region string
	// Keys of a user that may make buckets. Empty keys ask anonymously.
	Keys storage.Keys
	// TLS of an https endpoint: the system's authorities unless set.
	TLS *tls.Config
	// Attempt bounds one request, 15 s unless set.
	Attempt time.Duration
	// Attempts is how often at most a request is sent while the endpoint is
	// Unavailable, 5 unless set.
	Attempts int
}

// Validate says whether the options can work.
func (o Options) Validate() error {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return storage.Errorf(storage.Invalid, "S3 endpoint %q: must be a URL such as http://127.0.0.1:8333", o.Endpoint)
	}
	if (o.Keys.Access == "") != (o.Keys.Secret == "") {
		return storage.Errorf(storage.Invalid, "S3 keys: an access key and its secret belong together")
	}
	if o.Attempt < 0 || o.Attempts < 0 {
		return storage.Errorf(storage.Invalid, "S3 client: attempts and their time must not be negative")
	}
	return nil
}

// Client is an S3 client for one endpoint.
type Client struct {
	s3 *s3.Client

	// Fixed after New.
	endpoint string
	attempt  time.Duration
	attempts int
}

// New makes a client. It does no I/O.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Client{attempt: o.Attempt, attempts: o.Attempts, endpoint: o.Endpoint}
	if c.attempt == 0 {
		c.attempt = defaultAttempt
	}
	if c.attempts == 0 {
		c.attempts = defaultAttempts
	}
	region := o.Region
	if region == "" {
		region = defaultRegion
	}
	var who aws.CredentialsProvider = aws.AnonymousCredentials{}
	if o.Keys.Access != "" {
		who = credentials.NewStaticCredentialsProvider(o.Keys.Access, o.Keys.Secret, "")
	}
	wire := &http.Client{Transport: &http.Transport{
		// No proxy from the environment: the endpoint is inside the cluster.
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     o.TLS.Clone(), // net/http writes into it
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}}
	c.s3 = s3.New(s3.Options{
		BaseEndpoint: aws.String(o.Endpoint), Region: region, Credentials: who, HTTPClient: wire,
		UsePathStyle: true, Retryer: aws.NopRetryer{},
		// By default the SDK adds trailing checksums, which gateways other than
		// AWS store as content.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
	return c, nil
}
