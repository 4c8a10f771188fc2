package memory

import (
	"context"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

func TestBuckets(t *testing.T)  { storagetest.Buckets(t, New()) }
func TestRecords(t *testing.T)  { storagetest.Records(t, New()) }
func TestReports(t *testing.T)  { storagetest.Reports(t, New()) }
func TestCapacity(t *testing.T) { storagetest.Capacity(t, New()) }

func TestPlacer(t *testing.T) {
	s := New()
	storagetest.Placer(t, s, s)
}

func TestAccess(t *testing.T) {
	s := New()
	storagetest.Access(t, s, s, s.use)
}

func TestBucketEmpty(t *testing.T) {
	s := New()
	if err := s.CreateBucket(t.Context(), "bucket"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutObject("bucket", "object"); err != nil {
		t.Fatal(err)
	}
	if empty, err := s.BucketEmpty(t.Context(), "bucket"); err != nil || empty {
		t.Errorf("empty = %v, %v", empty, err)
	}
}

// use is what an S3 client could do with keys.
func (s *Store) use(ctx context.Context, k storage.Keys, act storagetest.Act, b storage.BucketName, in storage.Path) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.control.owner(k)
	if u == nil {
		return storage.Errorf(storage.Denied, "access key %q: not known", k.Access)
	}
	have, ok := s.control.buckets[b]
	if u.bucket != b || !in.Within(u.prefix) || !act.Allowed() || !ok {
		return storage.Errorf(storage.Denied, "%s on bucket %s: access denied", act, b)
	}
	if act == storagetest.Put {
		have.objects[string(in.Join(storagetest.ObjectKey))] = struct{}{}
	}
	if act == storagetest.Delete {
		delete(have.objects, string(in.Join(storagetest.ObjectKey)))
	}
	return nil
}
