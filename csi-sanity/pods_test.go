package csisanity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// stagedVolume is a volume as the kubelet has it on a node.
type stagedVolume struct {
	*volume
	node    csi.NodeClient
	vc      *csi.VolumeCapability
	staging string
}

// stageFor stages a volume; it is unstaged at the end.
func (v *volume) stageFor(t *testing.T, node csi.NodeClient, vc *csi.VolumeCapability) *stagedVolume {
	t.Helper()
	s := &stagedVolume{v, node, vc, filepath.Join(v.in.work, v.name+"-staging")}
	if _, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: s.staging, VolumeCapability: vc}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stagedVolume) publish(t *testing.T, at string, readOnly bool) (dir string, err error) {
	t.Helper()
	dir = filepath.Join(s.in.work, s.name+"-"+at)
	_, err = s.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: s.Bucket, StagingTargetPath: s.staging, TargetPath: dir, VolumeCapability: s.vc, Readonly: readOnly,
	})
	return dir, err
}

func (s *stagedVolume) mustPublish(t *testing.T, at string, readOnly bool) string {
	t.Helper()
	dir, err := s.publish(t, at, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *stagedVolume) unpublish(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if _, err := s.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: s.Bucket, TargetPath: dir}); err != nil {
			t.Errorf("unpublish: %v", err)
		}
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

func (s *stagedVolume) unstage(t *testing.T) {
	t.Helper()
	if _, err := s.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: s.Bucket, StagingTargetPath: s.staging}); err != nil {
		t.Errorf("unstage: %v", err)
	}
	if err := os.Remove(s.staging); err != nil { // rmdir: the kubelet's part
		t.Error(err)
	}
}

func readOnlyDir(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "no"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a write into %s: %v, want a read-only file system", dir, err)
	}
}

// A hundred pods of a node have one volume, some for reading: each sees what the others
// write, and goes when it likes.
func TestHundredPods(t *testing.T) {
	const pods = 100
	in := shared(t)
	v := in.create(t, volumeName(t))
	s := v.stageFor(t, in.nodeService(t), capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER))
	dirs := make([]string, pods)
	begun := time.Now()
	var at sync.WaitGroup
	for i := range dirs {
		at.Go(func() { // the kubelet does not wait for one before it asks for the next
			dir, err := s.publish(t, fmt.Sprintf("pod%d", i), i%10 == 9)
			if err != nil {
				t.Error(err)
			}
			dirs[i] = dir
		})
	}
	at.Wait()
	t.Logf("%d publishes in %v", pods, time.Since(begun))
	for i, dir := range dirs {
		if i%10 == 9 {
			readOnlyDir(t, dir)
			continue
		}
		at.Go(func() {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("of-%d", i)), []byte{byte(i)}, 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	at.Wait()
	for i := range dirs {
		b, err := os.ReadFile(filepath.Join(dirs[(i+9)%pods/10*10+9], fmt.Sprintf("of-%d", i)))
		if i%10 != 9 && (err != nil || len(b) != 1 || b[0] != byte(i)) {
			t.Errorf("pod %d: %v, %v", i, b, err)
		}
	}
	begun = time.Now()
	for _, dir := range dirs {
		at.Go(func() { s.unpublish(t, dir) })
	}
	at.Wait()
	t.Logf("%d unpublishes in %v", pods, time.Since(begun))
	s.unstage(t)
}

// One pod with many volumes, published at once as the kubelet does.
func TestManyVolumesOfAPod(t *testing.T) {
	const volumes = 20
	in := shared(t)
	node := in.nodeService(t)
	all, dirs := make([]*stagedVolume, volumes), make([]string, volumes)
	for i := range all {
		all[i] = &stagedVolume{volume: in.create(t, fmt.Sprintf("%s-%d", volumeName(t), i))}
	}
	var at sync.WaitGroup
	for i, s := range all {
		at.Go(func() {
			all[i] = s.stageFor(t, node, oneWriter())
			dirs[i] = all[i].mustPublish(t, "pod", false)
			if err := os.WriteFile(filepath.Join(dirs[i], "file"), []byte(s.name), 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	at.Wait()
	for i, s := range all {
		if err := sameContent(filepath.Join(dirs[i], "file"), s.name); err != nil {
			t.Error(err)
		}
		s.unpublish(t, dirs[i])
		s.unstage(t)
	}
}

// A subPath is a bind that the kubelet makes of a folder of the volume: it outlives the
// mounter, and while it is there the volume is not taken away beneath it.
func TestSubPath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the kubelet's own bind needs root")
	}
	in := startState(t)
	v := in.create(t, volumeName(t))
	s := v.stageFor(t, in.nodeService(t), capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER))
	dir, sub := s.mustPublish(t, "pod", false), filepath.Join(in.work, "subpath")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755), os.Mkdir(sub, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(dir, "a/b"), sub, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(sub, 0)
		}
		if err := os.Remove(sub); err != nil { // rmdir
			t.Error(err)
		}
	}()
	f, err := os.Create(filepath.Join(sub, "file"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range in.workers() {
		kill(t, pid)
	}
	if _, err := f.WriteString("through a subPath"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := v.holds(t.Context(), "a/b/file", "through a subPath"); err != nil {
		t.Error(err)
	}
	// The kubelet takes subPaths away first; one that is left keeps the volume.
	s.unpublish(t, dir)
	_, err = s.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: s.staging})
	refused(t, "unstage beneath a subPath", err, codes.FailedPrecondition, "busy")
	if err := sameContent(filepath.Join(sub, "file"), "through a subPath"); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(sub, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	s.unstage(t)
}

// workers are the mounter's.
func (in *installation) workers() (pids []int) {
	for _, pid := range in.processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := strings.Split(string(args), "\x00"); len(words) > 1 && words[1] == "worker" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ReadWriteOncePod, ReadOnlyMany, and a pod that wants a volume for reading.
func TestPodAccess(t *testing.T) {
	in := shared(t)
	node := in.nodeService(t)
	t.Run("RWOP", func(t *testing.T) {
		v := in.create(t, volumeName(t))
		s := v.stageFor(t, node, capabilityOf(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER))
		first := s.mustPublish(t, "first", false)
		_, err := s.publish(t, "second", false)
		refused(t, "a second pod", err, codes.FailedPrecondition, first)
		if _, err := s.publish(t, "first", false); err != nil {
			t.Errorf("the first pod again: %v", err)
		}
		s.unpublish(t, first)
		s.unpublish(t, s.mustPublish(t, "second", false))
		s.unstage(t)
	})
	t.Run("ROX", func(t *testing.T) {
		v := in.create(t, volumeName(t))
		v.put(t, "object", "there before")
		s := v.stageFor(t, node, capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY))
		for _, readOnly := range []bool{true, false} {
			dir := s.mustPublish(t, fmt.Sprint(readOnly), readOnly)
			if err := sameContent(filepath.Join(dir, "object"), "there before"); err != nil {
				t.Error(err)
			}
			readOnlyDir(t, dir)
			s.unpublish(t, dir)
		}
		s.unstage(t)
	})
	t.Run("readOnly", func(t *testing.T) {
		v := in.create(t, volumeName(t))
		s := v.stageFor(t, node, oneWriter())
		writer, reader := s.mustPublish(t, "writer", false), s.mustPublish(t, "reader", true)
		if err := os.WriteFile(filepath.Join(writer, "file"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
		if err := sameContent(filepath.Join(reader, "file"), "x"); err != nil {
			t.Error(err)
		}
		readOnlyDir(t, reader)
		s.unpublish(t, writer, reader)
		s.unstage(t)
	})
}

// A PersistentVolume that no provisioner made: its volumeHandle is the id of a volume
// that is there, and it needs no attributes. With one that no volume has, its attributes
// are judged.
func TestStaticVolume(t *testing.T) {
	in := shared(t)
	admin := in.adminKeys(t, in.mustStatus(t)).client()
	bucket, key := aws.String("static-bucket"), aws.String("old")
	if _, err := admin.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, err := admin.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key})
		if err == nil {
			_, err = admin.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
		}
		if err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if _, err := admin.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("from before Holdfast")}); err != nil {
		t.Fatal(err)
	}
	// Made once, by whoever makes the PersistentVolume.
	v := in.create(t, volumeName(t), "--param", "bucketName=static-bucket", "--param", "onDelete=retain")
	node := in.nodeService(t)
	stage := func(id string, attributes map[string]string) error {
		_, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: filepath.Join(in.work, "static-staging"), VolumeCapability: oneWriter(), VolumeContext: attributes})
		return err
	}
	refused(t, "a handle that no volume has", stage("static-bucket", nil), codes.NotFound, "static-bucket", "volumeHandle", "bucketName")
	refused(t, "a bucket that is not there", stage("static-nowhere", map[string]string{"bucketName": "static-nowhere"}), codes.NotFound, "bucketName", "static-nowhere")
	refused(t, "an unknown attribute", stage("static-handle", map[string]string{"bucketName": "static-bucket", "replicas": "2"}), codes.InvalidArgument, "replicas", "bucketName")
	refused(t, "another bucket", stage(v.name, map[string]string{"bucketName": "other"}), codes.InvalidArgument, "other", "static-bucket")
	s := (&volume{in: in, name: v.name, Bucket: v.name}).stageFor(t, node, oneWriter())
	dir := s.mustPublish(t, "pod", false)
	if err := sameContent(filepath.Join(dir, "old"), "from before Holdfast"); err != nil {
		t.Error(err)
	}
	s.unpublish(t, dir)
	s.unstage(t)
}

// A PersistentVolume brings in a bucket that no volume has: by its attributes alone. When
// it goes, the bucket stays with all that is in it.
func TestStaticBucket(t *testing.T) {
	in := shared(t)
	admin := in.adminKeys(t, in.mustStatus(t)).client()
	bucket := aws.String("bucket-from-before")
	if _, err := admin.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for _, key := range []string{"old", "new"} {
			if _, err := admin.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String(key)}); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
		if _, err := admin.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket}); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if _, err := admin.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String("old"), Body: strings.NewReader("from before Holdfast")}); err != nil {
		t.Fatal(err)
	}
	node := in.nodeService(t)
	const handle = "my-static-volume"
	s := &stagedVolume{&volume{in: in, name: handle, Bucket: handle}, node, oneWriter(), filepath.Join(in.work, "brought-in")}
	begun := time.Now()
	if _, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: handle, StagingTargetPath: s.staging, VolumeCapability: s.vc, VolumeContext: map[string]string{"bucketName": *bucket, "size": "1Gi"}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("let in after %s", time.Since(begun).Round(time.Millisecond))
	dir := s.mustPublish(t, "brought-in-pod", false)
	if err := sameContent(filepath.Join(dir, "old"), "from before Holdfast"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte("by a pod"), 0o600); err != nil {
		t.Error(err)
	}
	s.unpublish(t, dir)
	s.unstage(t)
	in.must(t, "volume", "delete", handle, "--yes")
	for key, want := range map[string]string{"old": "from before Holdfast", "new": "by a pod"} {
		object, err := admin.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: aws.String(key)})
		if err != nil {
			t.Errorf("%s after the deletion: %v", key, err)
			continue
		}
		content, err := io.ReadAll(object.Body)
		if err := errors.Join(err, object.Body.Close()); err != nil || string(content) != want {
			t.Errorf("%s after the deletion: %q, %v", key, content, err)
		}
	}
}
