package s3client

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-csi/holdfast/storage"
)

// TestRealFolderIsAWall: no call that names an object in a second place leads out
// of the folder.
func TestRealFolderIsAWall(t *testing.T) {
	admin, o := realClient(t), realOptions(t)
	access := realAccess(t, admin)
	b := newBucket(t, admin)
	put(t, admin, b, "other/secret")
	user := "holdfast-" + string(b)
	t.Cleanup(func() { _ = access.Revoke(context.WithoutCancel(t.Context()), user) })
	k, err := access.Grant(t.Context(), user, b, "own")
	if err != nil {
		t.Fatal(err)
	}
	o.Keys = k
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, b, "own/mine")
	bucket := aws.String(string(b))
	for what, call := range map[string]func(context.Context) error{
		"copy from": func(ctx context.Context) error {
			_, err := c.s3.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("own/copy"), CopySource: aws.String(string(b) + "/other/secret")})
			return err
		},
		"copy to": func(ctx context.Context) error {
			_, err := c.s3.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("other/copy"), CopySource: aws.String(string(b) + "/own/mine")})
			return err
		},
		"upload to": func(ctx context.Context) error {
			_, err := c.s3.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: aws.String("other/upload")})
			return err
		},
		"list versions": func(ctx context.Context) error {
			_, err := c.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: bucket})
			return err
		},
		"list uploads": func(ctx context.Context) error {
			_, err := c.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket})
			return err
		},
		"list (version 1)": func(ctx context.Context) error {
			_, err := c.s3.ListObjects(ctx, &s3.ListObjectsInput{Bucket: bucket})
			return err
		},
		"list another folder (version 1)": func(ctx context.Context) error {
			_, err := c.s3.ListObjects(ctx, &s3.ListObjectsInput{Bucket: bucket, Prefix: aws.String("other/")})
			return err
		},
		"rename from": func(ctx context.Context) error { return rename(ctx, o, b, "own/taken", "other/secret") },
		"rename to":   func(ctx context.Context) error { return rename(ctx, o, b, "other/put", "own/mine") },
	} {
		err := c.do(t.Context(), what, string(b), call)
		if !storage.Is(err, storage.Denied) {
			t.Errorf("%s another folder: %v (%v), want Denied", what, err, storage.KindOf(err))
		}
	}
	if err := rename(t.Context(), o, b, "own/moved", "own/mine"); err != nil {
		t.Errorf("rename within the folder: %v", err)
	}
	// This one answers for each object.
	out, err := c.s3.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{
		Objects: []types.ObjectIdentifier{{Key: aws.String("other/secret")}, {Key: aws.String("own/moved")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Errors) != 1 || aws.ToString(out.Errors[0].Key) != "other/secret" || len(out.Deleted) != 1 || aws.ToString(out.Deleted[0].Key) != "own/moved" {
		t.Errorf("delete of several: deleted %v, refused %v", out.Deleted, out.Errors)
	}
	for _, key := range []string{"own/../other/secret", "own/./../other/secret", "own//../other/secret"} {
		out, err := c.s3.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: aws.String(key)})
		if err == nil {
			_ = out.Body.Close()
			t.Errorf("get of %s is answered", key)
		}
	}
	if _, err := admin.s3.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("other/secret")}); err != nil {
		t.Errorf("the other folder's object is gone: %v", err)
	}
}

// rename is SeaweedFS's own call (RenameObject of directory buckets).
func rename(ctx context.Context, o Options, b storage.BucketName, to, from string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, o.Endpoint+"/"+string(b)+"/"+to+"?renameObject", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Amz-Rename-Source", "/"+string(b)+"/"+from)
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	req.Header.Set("X-Amz-Content-Sha256", empty)
	who := aws.Credentials{AccessKeyID: o.Keys.Access, SecretAccessKey: o.Keys.Secret}
	if err := v4.NewSigner().SignHTTP(ctx, who, req, empty, "s3", defaultRegion, time.Now()); err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if kind, ok := statusKinds[resp.StatusCode]; ok {
		return storage.Errorf(kind, "rename: %s", resp.Status)
	}
	return nil
}
