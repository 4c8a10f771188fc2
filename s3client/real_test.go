package s3client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

// These tests run against a real SeaweedFS (real_cluster_test.go).

func TestRealBuckets(t *testing.T) { storagetest.Buckets(t, realClient(t)) }

func TestRealAccess(t *testing.T) {
	o := realOptions(t)
	admin := realClient(t)
	storagetest.Access(t, realAccess(t, admin), admin, func(ctx context.Context, k storage.Keys, act storagetest.Act, b storage.BucketName, in storage.Path) error {
		return use(ctx, o, k, act, b, in)
	})
}

// TestRealDeleteBucketWithContent: objects, old versions, delete markers and an
// unfinished upload all go.
func TestRealDeleteBucketWithContent(t *testing.T) {
	c, b := realClient(t), storagetest.Unique("full")
	fill(t, c, b)
	if err := c.DeleteBucket(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if exists, err := c.BucketExists(t.Context(), b); err != nil || exists {
		t.Errorf("exists = %v, %v", exists, err)
	}
}

// TestRealEmptyBucket: what DeleteBucket does for a gateway that refuses.
func TestRealEmptyBucket(t *testing.T) {
	c, b := realClient(t), storagetest.Unique("full")
	fill(t, c, b)
	if err := c.emptyBucket(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if empty, err := c.BucketEmpty(t.Context(), b); err != nil || !empty {
		t.Errorf("empty = %v, %v", empty, err)
	}
	if err := c.DeleteBucket(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// TestRealBucketEmpty: one thing of any sort is enough not to be empty.
func TestRealBucketEmpty(t *testing.T) {
	c := realClient(t)
	for what, make := range map[string]func(*testing.T, *Client, storage.BucketName){
		"an object":            func(t *testing.T, c *Client, b storage.BucketName) { put(t, c, b, "a/b/c") },
		"an unfinished upload": startUpload,
	} {
		t.Run(what, func(t *testing.T) {
			b := newBucket(t, c)
			make(t, c, b)
			if empty, err := c.BucketEmpty(t.Context(), b); err != nil || empty {
				t.Errorf("empty = %v, %v", empty, err)
			}
		})
	}
}

// TestRealGrantConcurrently: the calls may fail, but whatever key is alive in the end belongs to the user and reaches its bucket alone.
func TestRealGrantConcurrently(t *testing.T) {
	c, o := realClient(t), realOptions(t)
	access := realAccess(t, c)
	b := newBucket(t, c)
	user := "holdfast-" + string(b)
	t.Cleanup(func() { _ = access.Revoke(context.WithoutCancel(t.Context()), user) })
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { _, _ = access.Grant(t.Context(), user, b, "") })
	}
	all.Wait()
	k, err := access.Grant(t.Context(), user, b, "")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := access.ListKeys(t.Context(), user)
	if err != nil || !slices.Equal(keys, []string{k.Access}) {
		t.Errorf("keys = %v, %v, want %s alone", keys, err, k.Access)
	}
	if err := use(t.Context(), o, k, storagetest.Put, b, ""); err != nil {
		t.Error(err)
	}
}

// TestRealTenantSeesItsBucketAlone: ListBuckets tells no other names.
func TestRealTenantSeesItsBucketAlone(t *testing.T) {
	c, o := realClient(t), realOptions(t)
	b := newBucket(t, c)
	newBucket(t, c)
	user := "holdfast-" + string(b)
	access := realAccess(t, c)
	t.Cleanup(func() { _ = access.Revoke(context.WithoutCancel(t.Context()), user) })
	k, err := access.Grant(t.Context(), user, b, "")
	if err != nil {
		t.Fatal(err)
	}
	o.Keys = k
	tenant, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := tenant.s3.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, have := range out.Buckets {
		if aws.ToString(have.Name) != string(b) {
			t.Errorf("the tenant of %s sees %s", b, aws.ToString(have.Name))
		}
	}
}

// TestRealLongestUser: the longest name that the driver makes works.
func TestRealLongestUser(t *testing.T) {
	c := realClient(t)
	b := newBucket(t, c)
	user := "holdfast-" + string(bytes.Repeat([]byte("u"), 22)) + "_" + string(bytes.Repeat([]byte("0"), 32))
	access := realAccess(t, c)
	if _, err := access.Grant(t.Context(), user, b, ""); err != nil {
		t.Fatal(err)
	}
	if err := access.Revoke(t.Context(), user); err != nil {
		t.Fatal(err)
	}
}

// use does one act with the keys given, as an S3 client does.
func use(ctx context.Context, o Options, k storage.Keys, act storagetest.Act, b storage.BucketName, in storage.Path) error {
	o.Keys = k
	c, err := New(o)
	if err != nil {
		return err
	}
	bucket, key := aws.String(string(b)), aws.String(string(in.Join(storagetest.ObjectKey)))
	list := &s3.ListObjectsV2Input{Bucket: bucket}
	if in != "" {
		list.Prefix = aws.String(string(in) + "/")
	}
	calls := map[storagetest.Act]func(context.Context) error{
		storagetest.Put: func(ctx context.Context) error {
			_, err := c.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader([]byte("content"))})
			return err
		},
		storagetest.Get: func(ctx context.Context) error {
			out, err := c.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key})
			if err != nil {
				return err
			}
			got, err := io.ReadAll(out.Body)
			if err == nil && string(got) != "content" {
				err = fmt.Errorf("content = %q", got)
			}
			return errors.Join(err, out.Body.Close())
		},
		storagetest.List: func(ctx context.Context) error {
			_, err := c.s3.ListObjectsV2(ctx, list)
			return err
		},
		storagetest.Delete: func(ctx context.Context) error {
			_, err := c.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key})
			return err
		},
		storagetest.SetVersioning: func(ctx context.Context) error { return setVersioning(ctx, c, b) },
		storagetest.SetLifecycle: func(ctx context.Context) error {
			_, err := c.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
				Bucket: bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
					ID: aws.String("x"), Status: types.ExpirationStatusEnabled,
					Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(1)},
				}}},
			})
			return err
		},
		storagetest.SetPolicy: func(ctx context.Context) error {
			_, err := c.s3.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: bucket, Policy: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::` + string(b) + `/*"}]}`)})
			return err
		},
		storagetest.SetACL: func(ctx context.Context) error {
			_, err := c.s3.PutBucketAcl(ctx, &s3.PutBucketAclInput{Bucket: bucket, ACL: types.BucketCannedACLPublicRead})
			return err
		},
		storagetest.RemoveBucket: func(ctx context.Context) error {
			_, err := c.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
			return err
		},
		storagetest.MakeKey: func(ctx context.Context) error {
			_, err := iam.New(iam.Options{
				BaseEndpoint: aws.String(o.Endpoint), Region: defaultRegion, Retryer: aws.NopRetryer{}, Credentials: c.s3.Options().Credentials,
			}).CreateAccessKey(ctx, &iam.CreateAccessKeyInput{})
			return err
		},
	}
	return c.do(ctx, string(act), string(b), calls[act])
}

func fill(t *testing.T, c *Client, b storage.BucketName) {
	t.Helper()
	if err := c.CreateBucket(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	put(t, c, b, "plain")
	put(t, c, b, "folder/plain")
	if err := setVersioning(t.Context(), c, b); err != nil {
		t.Fatal(err)
	}
	put(t, c, b, "versioned")
	put(t, c, b, "versioned")
	put(t, c, b, "deleted")
	if _, err := c.s3.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(string(b)), Key: aws.String("deleted")}); err != nil {
		t.Fatal(err)
	}
	startUpload(t, c, b)
}

func setVersioning(ctx context.Context, c *Client, b storage.BucketName) error {
	_, err := c.s3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket:                  aws.String(string(b)),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	return err
}

func put(t *testing.T, c *Client, b storage.BucketName, key string) {
	t.Helper()
	_, err := c.s3.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(string(b)), Key: aws.String(key), Body: bytes.NewReader([]byte(key)),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func startUpload(t *testing.T, c *Client, b storage.BucketName) {
	t.Helper()
	up, err := c.s3.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String(string(b)), Key: aws.String("upload")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.s3.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: aws.String(string(b)), Key: aws.String("upload"), UploadId: up.UploadId,
		PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("part")),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newBucket(t *testing.T, c *Client) storage.BucketName {
	t.Helper()
	b := storagetest.Unique("real")
	if err := c.CreateBucket(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.DeleteBucket(context.WithoutCancel(t.Context()), b) })
	return b
}

// realAccess changes users where the gateway keeps them, and waits for the gateway.
func realAccess(t *testing.T, c *Client) storage.Access {
	t.Helper()
	realOptions(t)
	config, err := running.cluster.TLS()
	if err != nil {
		t.Fatal(err)
	}
	store, err := seaweed.Open(t.Context(), seaweed.Options{Filer: running.cluster.Endpoints().FilerGRPC, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return c.Settled(store)
}

func realClient(t *testing.T) *Client {
	t.Helper()
	c, err := New(realOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
