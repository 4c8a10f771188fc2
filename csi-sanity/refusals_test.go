package csisanity

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
)

// refused wants an error of that code whose text holds all of words.
func refused(t *testing.T, what string, err error, code codes.Code, words ...string) {
	t.Helper()
	if grpcstatus.Code(err) != code {
		t.Errorf("%s: %v, want %v", what, err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v does not say %q", what, err, w)
		}
	}
}

func capabilityOf(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

// controllerService speaks CSI to the installation's controller.
func (in *installation) controllerService(t *testing.T) csi.ControllerClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+in.mustStatus(t).Endpoints.Controller, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return csi.NewControllerClient(conn)
}

// A volume of one pod is not published for a second one, a volume of readers takes
// no write, and nothing is left of what was refused.
func TestAccessIsRefused(t *testing.T) {
	in := shared(t)
	controller, node := in.controllerService(t), in.nodeService(t)
	for name, mode := range map[string]csi.VolumeCapability_AccessMode_Mode{
		"one-pod": csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		"readers": csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	} {
		t.Run(name, func(t *testing.T) {
			vc := capabilityOf(mode)
			made, err := controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
				Name: volumeName(t), VolumeCapabilities: []*csi.VolumeCapability{vc}, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 30},
			})
			if err != nil {
				t.Fatal(err)
			}
			id := made.GetVolume().GetVolumeId()
			staging, pod, second := filepath.Join(in.work, id+"-staging"), filepath.Join(in.work, id+"-pod"), filepath.Join(in.work, id+"-second")
			if _, err := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: vc}); err != nil {
				t.Fatal(err)
			}
			publish := func(at string) error {
				_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: staging, TargetPath: at, VolumeCapability: vc})
				return err
			}
			if err := publish(pod); err != nil {
				t.Fatal(err)
			}
			if name == "one-pod" {
				refused(t, "a second pod", publish(second), codes.FailedPrecondition, id, "one pod at a time", pod)
			} else if err := os.WriteFile(filepath.Join(pod, "file"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Errorf("a write among readers: %v, want EROFS", err)
			}
			if _, err := os.Lstat(second); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", second, err)
			}
			_, err = controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
			refused(t, "a deletion in use", err, codes.FailedPrecondition, id)
			if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: pod}); err != nil {
				t.Error(err)
			}
			if _, err := node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging}); err != nil {
				t.Error(err)
			}
			if err := os.Remove(staging); err != nil { // rmdir: the kubelet's part
				t.Error(err)
			}
			if _, err := controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A bucket that is somebody else's is never taken: the volume gets another one, and
// is refused when that is taken too. Their objects stay.
func TestForeignBucketsAreLeftAlone(t *testing.T) {
	in := shared(t)
	b, err := os.ReadFile(in.mustStatus(t).Endpoints.AdminKeys)
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	admin := newClient(in.mustStatus(t).Endpoints.S3, credentials.NewStaticCredentialsProvider(keys.Access, keys.Secret, ""))
	name := volumeName(t)
	var taken []string
	take := func(bucket string) {
		if _, err := admin.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("theirs"), Body: strings.NewReader("theirs")}); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, bucket)
	}
	take(name)
	other := in.create(t, name).Bucket
	if other == name {
		t.Fatalf("the volume has taken the bucket %s", name)
	}
	in.must(t, "volume", "delete", name, "--yes")
	// SeaweedFS may keep the name for a moment.
	take(other)
	in.fails(t, []string{"volume", "create", name, "--size", "1Gi"}, name, other, "somebody else")
	if list := in.must(t, "volume", "list"); strings.Contains(list, name) {
		t.Errorf("a refused creation has left a volume:\n%s", list)
	}
	for _, bucket := range taken {
		v := &volume{in: in, Bucket: bucket, Endpoint: in.mustStatus(t).Endpoints.S3, Access: keys.Access, Secret: keys.Secret}
		if err := v.holds(t.Context(), "theirs", "theirs"); err != nil {
			t.Error(err)
		}
		if _, err := admin.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(bucket), Key: aws.String("theirs")}); err != nil {
			t.Error(err)
		}
		if _, err := admin.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String(bucket)}); err != nil {
			t.Error(fmt.Errorf("delete bucket %s: %w", bucket, err))
		}
	}
}
