// Command go writes, lists, reads and removes an object in the bucket of a claim. All
// that it knows of the bucket comes from the claim's Secret, as environment variables.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	bucket := os.Getenv("BUCKET_NAME")
	if bucket == "" {
		return errors.New("BUCKET_NAME is not set: run this with the variables of the claim's Secret")
	}
	key, content := os.Getenv("BUCKET_PREFIX")+"example-go.txt", []byte("written by Go\n")

	// Keys, region and endpoint are read from AWS_*.
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })

	if _, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(content)}); err != nil {
		return err
	}
	list, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: aws.String(os.Getenv("BUCKET_PREFIX"))})
	if err != nil {
		return err
	}
	for _, object := range list.Contents {
		fmt.Println(aws.ToInt64(object.Size), aws.ToString(object.Key))
	}
	object, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return err
	}
	got, err := io.ReadAll(object.Body)
	if err := errors.Join(err, object.Body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, content) {
		return fmt.Errorf("%s holds %q, want %q", key, got, content)
	}
	_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: &key})
	return err
}
