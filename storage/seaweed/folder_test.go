package seaweed_test

import (
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

// TestFolder: a folder of a bucket passes the suite that a bucket passes.
func TestFolder(t *testing.T) {
	folders := 0
	storagetest.Volume(t, func(t *testing.T) (a, b storage.Volume) {
		name, _ := newBucket(t)
		folders++
		folder := storage.Path(fmt.Sprintf("team/volume-%d", folders))
		c := open(t)
		if err := c.Prepare(t.Context(), name, folder); err != nil {
			t.Fatal(err)
		}
		return c.Folder(name, folder, storage.VolumeID(name)), open(t).Folder(name, folder, storage.VolumeID(name))
	})
}

// TestFolderSeesItself: what is done beside it is neither found nor told, and its
// own files are where S3 looks for them.
func TestFolderSeesItself(t *testing.T) {
	name, _ := newBucket(t)
	c := open(t)
	if err := c.Prepare(t.Context(), name, "a/b"); err != nil {
		t.Fatal(err)
	}
	whole, own, other := c.Volume(name, "whole"), c.Folder(name, "a/b", "own"), c.Folder(name, "a/bc", "other")
	if err := c.Prepare(t.Context(), name, "a/bc"); err != nil {
		t.Fatal(err)
	}
	root, err := own.Files.Lookup(t.Context(), "")
	if err != nil || root.Name != "" || root.Mode != fs.ModeDir|0o777 || !root.Native {
		t.Errorf("root %+v, %v", root, err)
	}
	ready, told := make(chan struct{}), make(chan storage.Event, 10)
	go func() {
		_ = own.Watcher.Watch(t.Context(), func() { close(ready) }, func(e storage.Event) { told <- e })
	}()
	<-ready
	file := func(v storage.Volume, p storage.Path) {
		t.Helper()
		now := time.Now()
		if _, err := v.Files.Create(t.Context(), p, storage.Entry{Mode: 0o600, Native: true, Inode: uint64(now.UnixNano()), Mtime: now}, false); err != nil {
			t.Fatal(err)
		}
	}
	file(other, "theirs")
	file(whole, "a/above")
	file(whole, "a/b/inside")
	for {
		select {
		case e := <-told:
			if e.New == nil || e.New.Path != "inside" {
				if e.Old == nil && e.New != nil && e.New.Path == "inside" {
					continue
				}
				t.Errorf("told of %+v %+v", e.Old, e.New)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("not told")
		}
		break
	}
	listed, err := own.Files.List(t.Context(), "", "", 10)
	if err != nil || len(listed) != 1 || listed[0].Name != "inside" {
		t.Errorf("listed %v, %v", listed, err)
	}
}

// TestOrphansOfTwoVolumes: a volume knows the holders of its own orphans alone,
// since it would take those of another volume of the bucket for dead.
func TestOrphansOfTwoVolumes(t *testing.T) {
	name, _ := newBucket(t)
	c := open(t)
	first, second := c.Volume(name, "first"), c.Volume(name, "second")
	now := time.Now()
	made, err := first.Files.Create(t.Context(), "f", storage.Entry{Mode: 0o600, Native: true, Inode: 1 << 50, Mtime: now, Inline: []byte("x"), Size: 1}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Files.Remove(t.Context(), "f", made, &storage.Orphan{Holder: "node.1", ID: 7}); err != nil {
		t.Fatal(err)
	}
	if holders, err := second.Orphans.Holders(t.Context()); err != nil || len(holders) > 0 {
		t.Errorf("the second volume sees %v, %v", holders, err)
	}
	if holders, err := first.Orphans.Holders(t.Context()); err != nil || len(holders) != 1 {
		t.Errorf("the first volume sees %v, %v", holders, err)
	}
}

// TestPrepareRefuses: a bucket that keeps versions, whose objects have no entry of
// their own, and a folder where an object is.
func TestPrepareRefuses(t *testing.T) {
	name, _ := newBucket(t)
	c := open(t)
	v := c.Volume(name, "x")
	if _, err := v.Files.Create(t.Context(), "object", storage.Entry{Mode: 0o600, Native: true, Inode: 5}, false); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []storage.Path{"object", "object/below"} {
		if err := c.Prepare(t.Context(), name, folder); !storage.Is(err, storage.Invalid) {
			t.Errorf("folder %s: %v, want Invalid", folder, err)
		}
	}
	keys := weed.AdminKeys()
	wire := s3.New(s3.Options{
		BaseEndpoint: aws.String(weed.Endpoints().S3URL), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(keys.Access, keys.Secret, ""),
	})
	set := func(state types.BucketVersioningStatus) {
		t.Helper()
		_, err := wire.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket: aws.String(string(name)), VersioningConfiguration: &types.VersioningConfiguration{Status: state},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set(types.BucketVersioningStatusEnabled)
	for _, folder := range []storage.Path{"", "folder"} {
		if err := c.Prepare(t.Context(), name, folder); !storage.Is(err, storage.Invalid) {
			t.Errorf("versioned, folder %q: %v, want Invalid", folder, err)
		}
	}
}
