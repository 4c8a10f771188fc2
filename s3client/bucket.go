package s3client

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-csi/holdfast/storage"
)

var _ storage.Buckets = (*Client)(nil)

// CreateBucket implements storage.Buckets.
func (c *Client) CreateBucket(ctx context.Context, b storage.BucketName) error {
	if err := b.Check(); err != nil {
		return err
	}
	return c.do(ctx, "create bucket", string(b), func(ctx context.Context) error {
		_, err := c.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(string(b))})
		return err
	})
}

// BucketExists implements storage.Buckets. A bucket that may not be looked at is
// there all the same: its name is taken.
func (c *Client) BucketExists(ctx context.Context, b storage.BucketName) (bool, error) {
	if err := b.Check(); err != nil {
		return false, err
	}
	err := c.do(ctx, "look up bucket", string(b), func(ctx context.Context) error {
		_, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(string(b))})
		return err
	})
	if storage.Is(err, storage.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// BucketEmpty implements storage.Buckets.
func (c *Client) BucketEmpty(ctx context.Context, b storage.BucketName) (bool, error) {
	if err := b.Check(); err != nil {
		return false, err
	}
	versions, err := c.listVersions(ctx, b, 1)
	if err != nil || len(versions) > 0 {
		return false, err
	}
	uploads, err := c.listUploads(ctx, b, 1)
	if err != nil || len(uploads) > 0 {
		return false, err
	}
	err = c.mustExist(ctx, b)
	return err == nil, err
}

// FolderEmpty implements storage.Buckets.
func (c *Client) FolderEmpty(ctx context.Context, b storage.BucketName, folder storage.Path) (bool, error) {
	if err := b.Check(); err != nil {
		return false, err
	}
	if err := folder.CheckFolder(); err != nil {
		return false, err
	}
	prefix := ""
	if folder != "" {
		prefix = string(folder) + "/"
	}
	found := 0
	err := c.do(ctx, "list folder in bucket", string(b), func(ctx context.Context) error {
		out, err := c.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(string(b)), Prefix: aws.String(prefix), MaxKeys: aws.Int32(1)})
		if err != nil {
			return err
		}
		found = len(out.Contents)
		return nil
	})
	if err != nil || found > 0 {
		return false, err
	}
	err = c.mustExist(ctx, b)
	return err == nil, err
}

// mustExist returns NotFound for a bucket that is not there: SeaweedFS lists nothing
// of one, as of an empty one.
func (c *Client) mustExist(ctx context.Context, b storage.BucketName) error {
	exists, err := c.BucketExists(ctx, b)
	if err == nil && !exists {
		err = storage.Errorf(storage.NotFound, "bucket %s: not found", b)
	}
	return err
}

// DeleteBucket implements storage.Buckets. SeaweedFS drops the bucket's
// collection and its names in one call, unless it was started otherwise or the
// bucket has object lock; then the bucket is emptied in pages first. Several
// rounds, as others may still write; an object under a lock ends them, with the
// server's refusal.
func (c *Client) DeleteBucket(ctx context.Context, b storage.BucketName) error {
	if err := b.Check(); err != nil {
		return err
	}
	const rounds = 3
	for round := 1; ; round++ {
		err := c.doWithin(ctx, removal, "delete bucket", string(b), func(ctx context.Context) error {
			_, err := c.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(string(b))})
			return err
		})
		if storage.Is(err, storage.NotFound) {
			return nil
		}
		if !storage.Is(err, storage.NotEmpty) || round > rounds {
			return err
		}
		if err := c.emptyBucket(ctx, b); err != nil {
			return err
		}
	}
}
