package storagetest

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// Unique returns a bucket name that nothing else uses, so that suites can share
// a real cluster and be repeated on it.
func Unique(prefix string) storage.BucketName {
	return storage.BucketName(prefix + "-" + strings.ToLower(rand.Text()[:10]))
}

// Buckets is the suite of storage.Buckets.
func Buckets(t *testing.T, buckets storage.Buckets) {
	t.Run("CreateAndDelete", func(t *testing.T) { bucketCreateAndDelete(t, buckets) })
	t.Run("CreateTwiceIsExists", func(t *testing.T) { bucketCreateTwice(t, buckets) })
	t.Run("InvalidName", func(t *testing.T) { bucketInvalidName(t, buckets) })
	t.Run("DeleteMissingIsFine", func(t *testing.T) { bucketDeleteMissing(t, buckets) })
	t.Run("EmptyOfMissingIsNotFound", func(t *testing.T) { bucketEmptyMissing(t, buckets) })
	t.Run("FolderOfMissingIsNotFound", func(t *testing.T) { bucketFolderMissing(t, buckets) })
	t.Run("MadeAgainAtOnce", func(t *testing.T) { bucketMadeAgain(t, buckets) })
	t.Run("ContextEnds", func(t *testing.T) { bucketContext(t, buckets) })
}

func bucketCreateAndDelete(t *testing.T, buckets storage.Buckets) {
	ctx, b := t.Context(), Unique("suite")
	wantExists(t, buckets, b, false)
	must(t, "create", buckets.CreateBucket(ctx, b))
	wantExists(t, buckets, b, true)
	empty, err := buckets.BucketEmpty(ctx, b)
	must(t, "empty", err)
	if !empty {
		t.Errorf("new bucket %s is not empty", b)
	}
	must(t, "delete", buckets.DeleteBucket(ctx, b))
	wantExists(t, buckets, b, false)
}

func bucketCreateTwice(t *testing.T, buckets storage.Buckets) {
	b := makeBucket(t, buckets)
	wantKind(t, "second creation", buckets.CreateBucket(t.Context(), b), storage.Exists)
	wantExists(t, buckets, b, true)
}

func bucketInvalidName(t *testing.T, buckets storage.Buckets) {
	for _, b := range []storage.BucketName{"", "a", "Upper", "under_score", "a/b", "..", "a..b"} {
		wantKind(t, "creation of "+string(b), buckets.CreateBucket(t.Context(), b), storage.Invalid)
	}
}

func bucketDeleteMissing(t *testing.T, buckets storage.Buckets) {
	b := Unique("suite")
	must(t, "delete of a missing one", buckets.DeleteBucket(t.Context(), b))
}

func bucketFolderMissing(t *testing.T, buckets storage.Buckets) {
	_, err := buckets.FolderEmpty(t.Context(), Unique("suite"), "a/b")
	wantKind(t, "folder of a missing bucket", err, storage.NotFound)
	b := makeBucket(t, buckets)
	empty, err := buckets.FolderEmpty(t.Context(), b, "a/b")
	must(t, "missing folder", err)
	if !empty {
		t.Errorf("a missing folder of %s is not empty", b)
	}
}

func bucketEmptyMissing(t *testing.T, buckets storage.Buckets) {
	_, err := buckets.BucketEmpty(t.Context(), Unique("suite"))
	wantKind(t, "empty of a missing one", err, storage.NotFound)
}

func bucketMadeAgain(t *testing.T, buckets storage.Buckets) {
	b := makeBucket(t, buckets)
	for range 3 {
		must(t, "delete", buckets.DeleteBucket(t.Context(), b))
		must(t, "create again", buckets.CreateBucket(t.Context(), b))
	}
	wantExists(t, buckets, b, true)
}

func bucketContext(t *testing.T, buckets storage.Buckets) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Unique("suite")
	wantContext(t, "create", buckets.CreateBucket(ctx, b))
	wantContext(t, "delete", buckets.DeleteBucket(ctx, b))
	_, err := buckets.BucketExists(ctx, b)
	wantContext(t, "exists", err)
}

// makeBucket makes a bucket that goes with the test.
func makeBucket(t *testing.T, buckets storage.Buckets) storage.BucketName {
	t.Helper()
	b := Unique("suite")
	must(t, "create bucket", buckets.CreateBucket(t.Context(), b))
	t.Cleanup(func() {
		if err := buckets.DeleteBucket(context.WithoutCancel(t.Context()), b); err != nil {
			t.Errorf("delete bucket %s: %v", b, err)
		}
	})
	return b
}

func wantExists(t *testing.T, buckets storage.Buckets, b storage.BucketName, want bool) {
	t.Helper()
	got, err := buckets.BucketExists(t.Context(), b)
	must(t, "exists", err)
	if got != want {
		t.Errorf("bucket %s exists = %v, want %v", b, got, want)
	}
}
