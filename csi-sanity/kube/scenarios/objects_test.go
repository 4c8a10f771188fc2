package scenarios

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// This file is S3 as the administrator has it, who may see every bucket.

// s3Get reads an object.
func s3Get(t *testing.T, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	content, err := s3Request(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// buckets are the names of all that there are.
func buckets(ctx context.Context) ([]string, error) {
	answer, err := s3Request(ctx, "")
	if err != nil {
		return nil, err
	}
	var list struct {
		Names []string `xml:"Buckets>Bucket>Name"`
	}
	if err := xml.Unmarshal([]byte(answer), &list); err != nil {
		return nil, fmt.Errorf("the list of buckets: %w", err)
	}
	return list.Names, nil
}

// keysIn are the names of a bucket's objects, of which it has a thousand at most.
func keysIn(ctx context.Context, bucket string) ([]string, error) {
	answer, err := s3Request(ctx, bucket)
	if err != nil {
		return nil, err
	}
	var list struct {
		Keys        []string `xml:"Contents>Key"`
		IsTruncated bool
	}
	if err := xml.Unmarshal([]byte(answer), &list); err != nil {
		return nil, fmt.Errorf("the list of bucket %s: %w", bucket, err)
	}
	if list.IsTruncated {
		return nil, fmt.Errorf("bucket %s has more objects than one answer lists", bucket)
	}
	return list.Keys, nil
}

// s3Request is a signed GET.
func s3Request(ctx context.Context, path string) (string, error) { return s3Send(ctx, path) }

// s3Put makes a bucket, or an object with that content.
func s3Put(t *testing.T, path, content string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// Not every curl says by itself what it has signed.
	sum := fmt.Sprintf("x-amz-content-sha256: %x", sha256.Sum256([]byte(content)))
	if _, err := s3Send(ctx, path, "--request", "PUT", "--header", sum, "--header", "Content-Type: text/plain", "--data-raw", content); err != nil {
		t.Fatal(err)
	}
}

// s3Send is a signed request, with more options of curl.
func s3Send(ctx context.Context, path string, options ...string) (string, error) {
	text, err := kubectl(ctx, "", "get", system, "secret/holdfast-s3-admin", "-o", "json")
	if err != nil {
		return "", err
	}
	var secret struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(text), &secret); err != nil {
		return "", err
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(secret.Data["keys.json"], &keys); err != nil {
		return "", fmt.Errorf("keys.json of Secret holdfast-s3-admin: %w", err)
	}
	address, err := s3Address(ctx)
	if err != nil {
		return "", err
	}
	// The keys go by a file descriptor: arguments are seen by every user.
	line := append([]string{"--silent", "--show-error", "--fail", "--config", "-", "--aws-sigv4", "aws:amz:us-east-1:s3", "http://" + address + "/" + path}, options...)
	cmd := exec.CommandContext(ctx, "curl", line...)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("user = %q\n", keys.Access+":"+keys.Secret))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("curl /%s %q: %w: %s", path, options, err, &stderr)
	}
	return string(out), nil
}

// s3Address is the gateway's, for who runs outside the pods and has no cluster DNS.
func s3Address(ctx context.Context) (string, error) {
	return kubectl(ctx, "", "get", system, "service/holdfast-s3", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
}
