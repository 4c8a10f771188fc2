package s3client

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-csi/holdfast/storage"
)

// pageSize is how many objects one DeleteObjects call may name.
const pageSize = 1000

// emptyBucket removes every version of every object, every delete marker and
// every unfinished upload. It lists from the start each time: what was removed
// is not there any more, and a marker would skip what came meanwhile.
func (c *Client) emptyBucket(ctx context.Context, b storage.BucketName) error {
	for {
		page, err := c.listVersions(ctx, b, pageSize)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		if err := c.deleteObjects(ctx, b, page); err != nil {
			return err
		}
	}
	for {
		uploads, err := c.listUploads(ctx, b, pageSize)
		if err != nil || len(uploads) == 0 {
			return err
		}
		for _, u := range uploads {
			err := c.do(ctx, "abort upload in bucket", string(b), func(ctx context.Context) error {
				_, err := c.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
					Bucket: aws.String(string(b)), Key: u.Key, UploadId: u.UploadId,
				})
				return err
			})
			if err != nil && !storage.Is(err, storage.NotFound) {
				return err
			}
		}
	}
}

func (c *Client) listVersions(ctx context.Context, b storage.BucketName, limit int32) ([]types.ObjectIdentifier, error) {
	var page []types.ObjectIdentifier
	err := c.do(ctx, "list bucket", string(b), func(ctx context.Context) error {
		out, err := c.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{
			Bucket: aws.String(string(b)), MaxKeys: aws.Int32(limit),
		})
		if err != nil {
			return err
		}
		page = page[:0]
		for _, v := range out.Versions {
			page = append(page, types.ObjectIdentifier{Key: v.Key, VersionId: v.VersionId})
		}
		for _, m := range out.DeleteMarkers {
			page = append(page, types.ObjectIdentifier{Key: m.Key, VersionId: m.VersionId})
		}
		return nil
	})
	return page, err
}

func (c *Client) listUploads(ctx context.Context, b storage.BucketName, limit int32) ([]types.MultipartUpload, error) {
	var uploads []types.MultipartUpload
	err := c.do(ctx, "list uploads of bucket", string(b), func(ctx context.Context) error {
		out, err := c.s3.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{
			Bucket: aws.String(string(b)), MaxUploads: aws.Int32(limit),
		})
		if err != nil {
			return err
		}
		uploads = out.Uploads
		return nil
	})
	return uploads, err
}

// deleteObjects removes one page. The call succeeds even where an object could
// not be removed; the first such refusal becomes the error, so that emptyBucket
// cannot go on for ever.
func (c *Client) deleteObjects(ctx context.Context, b storage.BucketName, page []types.ObjectIdentifier) error {
	return c.do(ctx, "delete objects of bucket", string(b), func(ctx context.Context) error {
		out, err := c.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: aws.String(string(b)), Delete: &types.Delete{Objects: page, Quiet: aws.Bool(true)},
		})
		if err != nil {
			return err
		}
		for _, e := range out.Errors {
			if kind := codeKinds[aws.ToString(e.Code)]; kind != storage.NotFound {
				return storage.Errorf(kind, "object %q: %s: %s", aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message))
			}
		}
		return nil
	})
}
