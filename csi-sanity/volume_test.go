package csisanity

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// volume is a volume that a test made, with its keys.
type volume struct {
	in   *installation
	name string
	// As `holdfast volume credentials --format json` tells it.
	Endpoint string `json:"endpoint"`
	Region   string `json:"region"`
	Bucket   string `json:"bucket"`
	Prefix   string `json:"prefix"`
	Access   string `json:"access_key_id"`
	Secret   string `json:"secret_access_key"`
}

// volumeName is the test's name as the name of a volume.
func volumeName(t *testing.T) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return '-'
	}, t.Name()), "-")
}

// create makes a volume that is unmounted and deleted at the end of the test.
func (in *installation) create(t *testing.T, name string, flags ...string) *volume {
	t.Helper()
	in.must(t, append([]string{"volume", "create", name, "--size", "10Gi"}, flags...)...)
	t.Cleanup(func() { in.drop(t, name) })
	v := &volume{in: in, name: name}
	if err := json.Unmarshal([]byte(in.must(t, "volume", "credentials", name, "--format", "json")), v); err != nil {
		t.Fatal(err)
	}
	return v
}

// drop unmounts a volume everywhere and deletes it. One that is gone is fine.
func (in *installation) drop(t *testing.T, name string) {
	ctx := context.WithoutCancel(t.Context())
	s, err := in.status(ctx)
	if err != nil || s.Phase != "ready" {
		return // the installation goes as a whole
	}
	for _, m := range s.Mounts {
		if m.Name != name {
			continue
		}
		if _, err := in.run(ctx, "volume", "unmount", m.Target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
	if _, err := in.run(ctx, "volume", "delete", name, "--yes"); err != nil && !strings.Contains(err.Error(), "there is no volume") {
		t.Errorf("clean up: %v", err)
	}
}

// mount mounts the volume on a new folder.
func (v *volume) mount(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(v.in.work, fmt.Sprintf("%s-%d", v.name, os.Getpid()))
	v.in.must(t, "volume", "mount", v.name, dir)
	return dir
}

// remount unmounts and mounts it, so that nothing of it is in a cache.
func (v *volume) remount(t *testing.T, dir string) {
	t.Helper()
	v.in.must(t, "volume", "unmount", dir)
	v.in.must(t, "volume", "mount", v.name, dir)
}

// client is S3 with the volume's keys.
func (v *volume) client() *s3.Client {
	return newClient(v.Endpoint, credentials.NewStaticCredentialsProvider(v.Access, v.Secret, ""))
}

// anonymous is S3 without any.
func (v *volume) anonymous() *s3.Client { return newClient(v.Endpoint, aws.AnonymousCredentials{}) }

func newClient(endpoint string, who aws.CredentialsProvider) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: "us-east-1", Credentials: who, UsePathStyle: true,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

// put writes an object.
func (v *volume) put(t *testing.T, key, body string) {
	t.Helper()
	_, err := v.client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(v.Bucket), Key: aws.String(key), Body: strings.NewReader(body),
	})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}
