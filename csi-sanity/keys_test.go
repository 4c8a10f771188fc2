package csisanity

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A tenant's keys open its own bucket's objects and nothing else: no other
// bucket, and nothing of its own that would change the rules.
func TestKeysOfOneVolume(t *testing.T) {
	in := shared(t)
	a := in.create(t, volumeName(t)+"-a")
	b := in.create(t, volumeName(t)+"-b")
	if a.Access == b.Access || a.Bucket == b.Bucket {
		t.Fatalf("two volumes share keys or a bucket: %s %s", a.Bucket, b.Bucket)
	}
	b.put(t, "secret", "of b")
	a.put(t, "own", "of a")
	for name, client := range map[string]*s3.Client{"keys of a": a.client(), "nobody": a.anonymous()} {
		for what, do := range onBucket(b.Bucket, "secret") {
			denied(t, name+": "+what+" of b", do(t.Context(), client))
		}
		for what, do := range rulesOf(b.Bucket) {
			denied(t, name+": "+what+" of b", do(t.Context(), client))
		}
		for what, do := range rulesOf(a.Bucket) {
			denied(t, name+": "+what+" of a", do(t.Context(), client))
		}
		for _, bucket := range []string{a.Bucket, b.Bucket} {
			for what, do := range moreRules(bucket) {
				denied(t, name+": "+what+" of "+bucket, do(t.Context(), client))
			}
		}
	}
	for what, do := range onBucket(a.Bucket, "own") {
		denied(t, "nobody: "+what+" of a", do(t.Context(), a.anonymous()))
	}
	// And all that is allowed is left: the objects themselves, the other's too.
	for what, do := range onBucket(a.Bucket, "own") {
		if err := do(t.Context(), a.client()); err != nil {
			t.Errorf("keys of a: %s of a: %v", what, err)
		}
	}
	if err := onBucket(b.Bucket, "secret")["get"](t.Context(), b.client()); err != nil {
		t.Errorf("b's own object: %v", err)
	}
}

// call is one request.
type call func(context.Context, *s3.Client) error

// onBucket is what one does with objects.
func onBucket(bucket, key string) map[string]call {
	b, k := aws.String(bucket), aws.String(key)
	return map[string]call{
		"list": func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: b})
			return err
		},
		"get": func(ctx context.Context, c *s3.Client) error {
			out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: k})
			if err == nil {
				err = out.Body.Close()
			}
			return err
		},
		"put": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("new"), Body: strings.NewReader("x")})
			return err
		},
		"delete": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: aws.String("new")})
			return err
		},
		"multipart upload": func(ctx context.Context, c *s3.Client) error {
			up, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: aws.String("parts")})
			if err == nil {
				_, err = c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: b, Key: aws.String("parts"), UploadId: up.UploadId})
			}
			return err
		},
	}
}

// rulesOf is what only an administrator may do with a bucket.
func rulesOf(bucket string) map[string]call {
	b := aws.String(bucket)
	return map[string]call{
		"versioning": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
				Bucket: b, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
			})
			return err
		},
		"lifecycle": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
				Bucket: b, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
					ID: aws.String("all"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
					Expiration: &types.LifecycleExpiration{Days: aws.Int32(1)},
				}}},
			})
			return err
		},
		"policy": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::` + bucket + `","arn:aws:s3:::` + bucket + `/*"]}]}`)})
			return err
		},
		"policy's removal": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: b})
			return err
		},
		"ACL": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketAcl(ctx, &s3.PutBucketAclInput{Bucket: b, ACL: types.BucketCannedACLPublicReadWrite})
			return err
		},
		"lifecycle's removal": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: b})
			return err
		},
		"deletion": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b})
			return err
		},
	}
}

// denied wants AccessDenied and nothing like it.
func denied(t *testing.T, what string, err error) {
	t.Helper()
	if !isDenied(err) {
		t.Errorf("%s: want AccessDenied, got %v", what, err)
	}
}

func isDenied(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "AccessDenied" {
		return true
	}
	var resp *smithyhttp.ResponseError
	return errors.As(err, &resp) && resp.HTTPStatusCode() == http.StatusForbidden
}

// newIAM is IAM with those keys.
func newIAM(endpoint, access, secret string) *iam.Client {
	return iam.New(iam.Options{
		BaseEndpoint: aws.String(endpoint), Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
	})
}
