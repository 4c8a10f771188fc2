package memory

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// bucket is what the control path knows of a bucket.
type bucket struct {
	objects map[string]struct{}
}

var _ storage.Buckets = (*Store)(nil)

// CreateBucket implements storage.Buckets.
func (s *Store) CreateBucket(ctx context.Context, b storage.BucketName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.control.buckets[b]; ok {
		return storage.Errorf(storage.Exists, "bucket %s: already exists", b)
	}
	s.control.buckets[b] = &bucket{objects: map[string]struct{}{}}
	return nil
}

// BucketExists implements storage.Buckets.
func (s *Store) BucketExists(ctx context.Context, b storage.BucketName) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.control.buckets[b]
	return ok, nil
}

// BucketEmpty implements storage.Buckets.
func (s *Store) BucketEmpty(ctx context.Context, b storage.BucketName) (bool, error) {
	return s.FolderEmpty(ctx, b, "")
}

// FolderEmpty implements storage.Buckets.
func (s *Store) FolderEmpty(ctx context.Context, b storage.BucketName, folder storage.Path) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.control.buckets[b]
	if !ok {
		return false, storage.Errorf(storage.NotFound, "bucket %s: not found", b)
	}
	for key := range have.objects {
		if strings.HasPrefix(key, string(folder)+"/") || folder == "" {
			return false, nil
		}
	}
	return true, nil
}

// DeleteBucket implements storage.Buckets.
func (s *Store) DeleteBucket(ctx context.Context, b storage.BucketName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.control.buckets, b)
	return nil
}

// PutObject puts an object into a bucket, as any S3 client might, so that the
// bucket is not empty.
func (s *Store) PutObject(b storage.BucketName, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.control.buckets[b]
	if !ok {
		return storage.Errorf(storage.NotFound, "bucket %s: not found", b)
	}
	have.objects[key] = struct{}{}
	return nil
}

// BucketNames lists the buckets, for tests of what is left behind.
func (s *Store) BucketNames() []storage.BucketName {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.control.buckets))
}
