package csisanity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Every way from the keys of a to the objects of b: copies in both directions,
// uploads that b's own keys began, links that a's keys signed, a form.
func TestNoWayToAnotherBucket(t *testing.T) {
	in := shared(t)
	a := in.create(t, volumeName(t)+"-a")
	b := in.create(t, volumeName(t)+"-b")
	b.put(t, "secret", "of b")
	a.put(t, "own", "of a")
	upload := b.beginUpload(t, "parts")
	mine := a.beginUpload(t, "mine")
	copies := func(from, to *volume, key string) call {
		return func(ctx context.Context, c *s3.Client) error {
			_, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String(to.Bucket), Key: aws.String("copied"), CopySource: aws.String(from.Bucket + "/" + key)})
			return err
		}
	}
	for what, do := range map[string]call{
		"copy from b":      copies(b, a, "secret"),
		"copy to b":        copies(a, b, "own"),
		"copy within b":    copies(b, b, "secret"),
		"copy from ../b":   copies(a, a, "../"+b.Bucket+"/secret"),
		"copy from %2e./b": copies(a, a, "%2e%2e/"+b.Bucket+"/secret"),
		"a part from b": func(ctx context.Context, c *s3.Client) error {
			_, err := c.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
				Bucket: aws.String(a.Bucket), Key: aws.String("mine"), UploadId: mine, PartNumber: aws.Int32(2), CopySource: aws.String(b.Bucket + "/secret"),
			})
			return err
		},
		"a part of b's upload": func(ctx context.Context, c *s3.Client) error {
			_, err := c.UploadPart(ctx, &s3.UploadPartInput{
				Bucket: aws.String(b.Bucket), Key: aws.String("parts"), UploadId: upload, PartNumber: aws.Int32(2), Body: strings.NewReader("x"),
			})
			return err
		},
		"the parts of b's upload": func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListParts(ctx, &s3.ListPartsInput{Bucket: aws.String(b.Bucket), Key: aws.String("parts"), UploadId: upload})
			return err
		},
		"completion of b's upload": func(ctx context.Context, _ *s3.Client) error {
			thief := *b
			thief.Access, thief.Secret = a.Access, a.Secret
			return thief.completeUpload(ctx, "parts", upload)
		},
		"end of b's upload": func(ctx context.Context, c *s3.Client) error {
			_, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: aws.String(b.Bucket), Key: aws.String("parts"), UploadId: upload})
			return err
		},
		"the uploads of b": func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: aws.String(b.Bucket)})
			return err
		},
		"the versions of b": func(ctx context.Context, c *s3.Client) error {
			_, err := c.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: aws.String(b.Bucket)})
			return err
		},
		"tags of an object of b": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: aws.String(b.Bucket), Key: aws.String("secret"), Tagging: &types.Tagging{TagSet: []types.Tag{}}})
			return err
		},
	} {
		err := do(t.Context(), a.client())
		if err == nil || strings.HasPrefix(what, "copy from .") || strings.HasPrefix(what, "copy from %") {
			// However it is called: b's content must not come to a.
			if stolen := a.read(t, "copied"); stolen == "of b" {
				t.Errorf("%s: a has b's content", what)
				continue
			}
		}
		if !strings.HasPrefix(what, "copy from .") && !strings.HasPrefix(what, "copy from %") {
			denied(t, "keys of a: "+what, err)
		}
	}
	// Refused for each object, or as a whole: none goes.
	_, _ = a.client().DeleteObjects(t.Context(), &s3.DeleteObjectsInput{
		Bucket: aws.String(b.Bucket), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("secret")}}},
	})
	// b's upload under the name of a's bucket.
	if err := a.completeUpload(t.Context(), "parts", upload); err == nil {
		t.Error("an upload of b was completed in a")
	}
	for what, link := range presigned(t, a.client(), b.Bucket) {
		if code := link(t); code != http.StatusForbidden {
			t.Errorf("%s signed with a's keys: HTTP %d, want 403", what, code)
		}
	}
	if got := b.read(t, "secret"); got != "of b" {
		t.Errorf("b's object is %q now", got)
	}
	if got := b.read(t, "copied") + b.read(t, "new"); got != "" {
		t.Errorf("b has got %q", got)
	}
	if err := b.completeUpload(t.Context(), "parts", upload); err != nil {
		t.Errorf("b's own completion: %v", err)
	}
}

// read returns an object's content, or "" when there is none.
func (v *volume) read(t *testing.T, key string) string {
	t.Helper()
	out, err := v.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String(key)})
	if err != nil {
		return ""
	}
	defer func() { _ = out.Body.Close() }()
	got, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// presigned are links to the bucket that c has signed, each sent by whoever has
// no keys at all.
func presigned(t *testing.T, c *s3.Client, bucket string) map[string]func(*testing.T) int {
	t.Helper()
	signer := s3.NewPresignClient(c)
	b := aws.String(bucket)
	get, err := signer.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: b, Key: aws.String("secret")})
	if err != nil {
		t.Fatal(err)
	}
	put, err := signer.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("new")})
	if err != nil {
		t.Fatal(err)
	}
	form, err := signer.PresignPostObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("new")}, func(o *s3.PresignPostOptions) { o.Expires = time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(*testing.T) int{
		"a link to get": func(t *testing.T) int { return send(t, http.MethodGet, get.URL, "", nil) },
		"a link to put": func(t *testing.T) int { return send(t, http.MethodPut, put.URL, "", strings.NewReader("x")) },
		"a form": func(t *testing.T) int {
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			for name, value := range form.Values {
				if err := w.WriteField(name, value); err != nil {
					t.Fatal(err)
				}
			}
			file, err := w.CreateFormFile("file", "new")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = file.Write([]byte("x"))
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return send(t, http.MethodPost, form.URL, w.FormDataContentType(), &body)
		},
	}
}

func send(t *testing.T, method, url, form string, body io.Reader) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", form)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

// The links and the form themselves are right: for the own bucket they work.
func TestSignedLinks(t *testing.T) {
	v := shared(t).create(t, volumeName(t))
	v.put(t, "secret", "content")
	for what, link := range presigned(t, v.client(), v.Bucket) {
		if code := link(t); code/100 != 2 {
			t.Errorf("%s for the own bucket: HTTP %d", what, code)
		}
	}
}

// A tenant cannot make itself more than it is, nor touch a user: not itself either.
func TestTenantIsNoAdministrator(t *testing.T) {
	in := shared(t)
	a := in.create(t, volumeName(t)+"-a")
	b := in.create(t, volumeName(t)+"-b")
	me, other := aws.String("holdfast-"+a.Bucket), aws.String("holdfast-"+b.Bucket)
	all := aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}`)
	name := aws.String("holdfast")
	c := newIAM(a.Endpoint, a.Access, a.Secret)
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"CreateUser": func() error {
			_, err := c.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("new")})
			return err
		},
		"ListUsers":          func() error { _, err := c.ListUsers(ctx, &iam.ListUsersInput{}); return err },
		"GetUser of another": func() error { _, err := c.GetUser(ctx, &iam.GetUserInput{UserName: other}); return err },
		"UpdateUser": func() error {
			_, err := c.UpdateUser(ctx, &iam.UpdateUserInput{UserName: me, NewUserName: aws.String("x")})
			return err
		},
		"DeleteUser of another":      func() error { _, err := c.DeleteUser(ctx, &iam.DeleteUserInput{UserName: other}); return err },
		"CreateAccessKey of another": func() error { _, err := c.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: other}); return err },
		"ListAccessKeys of another":  func() error { _, err := c.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: other}); return err },
		"DeleteAccessKey of another": func() error {
			_, err := c.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: other, AccessKeyId: aws.String(b.Access)})
			return err
		},
		"UpdateAccessKey of another": func() error {
			_, err := c.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: other, AccessKeyId: aws.String(b.Access), Status: iamtypes.StatusTypeInactive})
			return err
		},
		"CreateAccessKey of itself": func() error { _, err := c.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{}); return err },
		"DeleteAccessKey of itself": func() error {
			_, err := c.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{AccessKeyId: aws.String(a.Access)})
			return err
		},
		"UpdateAccessKey of itself": func() error {
			_, err := c.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{AccessKeyId: aws.String(a.Access), Status: iamtypes.StatusTypeInactive})
			return err
		},
		"PutUserPolicy of itself": func() error {
			_, err := c.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: me, PolicyName: name, PolicyDocument: all})
			return err
		},
		"PutUserPolicy of another": func() error {
			_, err := c.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: other, PolicyName: name, PolicyDocument: all})
			return err
		},
		"GetUserPolicy of another": func() error {
			_, err := c.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: other, PolicyName: name})
			return err
		},
		"DeleteUserPolicy of itself": func() error {
			_, err := c.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: me, PolicyName: name})
			return err
		},
		"CreatePolicy": func() error {
			_, err := c.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("all"), PolicyDocument: all})
			return err
		},
		"AttachUserPolicy to itself": func() error {
			_, err := c.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: me, PolicyArn: aws.String("arn:aws:iam:::policy/all")})
			return err
		},
		"DetachUserPolicy of itself": func() error {
			_, err := c.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: me, PolicyArn: aws.String("arn:aws:iam:::policy/all")})
			return err
		},
		"CreateGroup": func() error {
			_, err := c.CreateGroup(ctx, &iam.CreateGroupInput{GroupName: aws.String("g")})
			return err
		},
	} {
		denied(t, what, do())
	}
	denied(t, "after all that, b's objects", onBucket(b.Bucket, "x")["put"](ctx, a.client()))
	if err := onBucket(b.Bucket, "x")["put"](ctx, b.client()); err != nil {
		t.Errorf("b's own keys: %v", err)
	}
	if err := onBucket(a.Bucket, "x")["put"](ctx, a.client()); err != nil {
		t.Errorf("a's own keys: %v", err)
	}
}

// moreRules is what else only an administrator may do with a bucket.
func moreRules(bucket string) map[string]call {
	b := aws.String(bucket)
	tag := types.Tag{Key: aws.String("k"), Value: aws.String("v")}
	return map[string]call{
		"CORS": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: b, CORSConfiguration: &types.CORSConfiguration{
				CORSRules: []types.CORSRule{{AllowedMethods: []string{"GET"}, AllowedOrigins: []string{"*"}}},
			}})
			return err
		},
		"encryption": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: b, ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{
				Rules: []types.ServerSideEncryptionRule{{ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}}},
			}})
			return err
		},
		"encryption's removal": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucketEncryption(ctx, &s3.DeleteBucketEncryptionInput{Bucket: b})
			return err
		},
		"tags": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: b, Tagging: &types.Tagging{TagSet: []types.Tag{tag}}})
			return err
		},
		"tags' removal": func(ctx context.Context, c *s3.Client) error {
			_, err := c.DeleteBucketTagging(ctx, &s3.DeleteBucketTaggingInput{Bucket: b})
			return err
		},
		"ownership": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutBucketOwnershipControls(ctx, &s3.PutBucketOwnershipControlsInput{Bucket: b, OwnershipControls: &types.OwnershipControls{
				Rules: []types.OwnershipControlsRule{{ObjectOwnership: types.ObjectOwnershipObjectWriter}},
			}})
			return err
		},
		"public access": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: b, PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{}})
			return err
		},
		"object lock": func(ctx context.Context, c *s3.Client) error {
			_, err := c.PutObjectLockConfiguration(ctx, &s3.PutObjectLockConfigurationInput{Bucket: b, ObjectLockConfiguration: &types.ObjectLockConfiguration{
				ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			}})
			return err
		},
		"a new bucket": func(ctx context.Context, c *s3.Client) error {
			_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(fmt.Sprintf("%.50s-more", bucket))})
			return err
		},
	}
}
