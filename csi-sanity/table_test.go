package csisanity

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"google.golang.org/grpc/codes"
)

// asked is a request for a volume with those parameters.
func asked(name string, params map[string]string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, Parameters: params, VolumeCapabilities: []*csi.VolumeCapability{oneWriter()}, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 30},
	}
}

// errorTable is what its tests stand on: an installation, a second node of its
// cluster, and what is there already.
type errorTable struct {
	in    *installation
	s     csiClients
	b     *secondNode
	admin *volume
	// taken is a volume of one node of 1 GiB, mounted on the first node.
	taken *volume
}

// TestErrorTable: each mistake gives an error of its own, which names the field, what
// was given and what is allowed, and nothing is left of what was refused: no bucket,
// user, policy, record, mount or folder.
//
// What takes an installation of its own is elsewhere: no room under everything
// (TestNoRoom) and under the journal (TestDiskFillsUp), under the cache
// (TestCacheDiskIsFull), a weed of another build (TestNoWeed,
// TestFolderOfAnotherBuild), certificates that ended for the command line
// (TestCertificatesHaveEnded).
func TestErrorTable(t *testing.T) {
	in := startState(t)
	table := &errorTable{in: in, s: in.csi(t), b: startNode(t, in, "node-b")}
	table.admin = in.adminKeys(t, in.mustStatus(t))
	table.taken = in.create(t, "taken", "--size", "1Gi", "--access", "single")
	dir := table.taken.mount(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.create(t, "shared-one", "--size", "1Gi", "--access", "shared")
	table.bucketWithObject(t, "theirs")
	before := in.census(t)
	t.Run("create", table.create)
	t.Run("expand", table.expand)
	t.Run("node", table.node)
	t.Run("readers", table.readers)
	if err := poll(t.Context(), time.Minute, func() error { return before.left(in.census(t)) }); err != nil {
		t.Errorf("of what was refused: %v", err)
	}
	if err := sameContent(filepath.Join(dir, "file"), "content"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("goes on"), 0o600); err != nil {
		t.Errorf("the volume that others wanted: %v", err)
	}
}

func (e *errorTable) bucketWithObject(t *testing.T, bucket string) {
	t.Helper()
	c := e.admin.client()
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
		t.Fatal(err)
	}
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String("object"), Body: strings.NewReader("theirs")})
	if err != nil {
		t.Fatal(err)
	}
}

// create: requests that make nothing.
func (e *errorTable) create(t *testing.T) {
	volumes := e.volumes(t)
	pvc := map[string]string{"csi.storage.k8s.io/pvc/name": "theirs", "csi.storage.k8s.io/pvc/namespace": "team", "csi.storage.k8s.io/pv/name": "pv"}
	with := func(params map[string]string) *csi.CreateVolumeRequest {
		maps.Copy(params, pvc)
		return asked("wanted", params)
	}
	change := func(r *csi.CreateVolumeRequest, f func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
		f(r)
		return r
	}
	for _, row := range []struct {
		name  string
		req   *csi.CreateVolumeRequest
		code  codes.Code
		words []string
	}{
		{"unknown parameter", asked("wanted", map[string]string{"no.such": "x"}), codes.InvalidArgument, []string{"no.such", "not known"}},
		{"near miss", asked("wanted", map[string]string{"bucketNme": "x"}), codes.InvalidArgument, []string{"bucketNme", "bucketName"}},
		{"value that is not allowed", asked("wanted", map[string]string{"onDelete": "keep"}), codes.InvalidArgument, []string{"onDelete", "keep", "delete, retain or archive"}},
		{"number that is none", asked("wanted", map[string]string{"uid": "root"}), codes.InvalidArgument, []string{"uid", "root", "0 to 4294967294"}},
		{"mode that is none", asked("wanted", map[string]string{"fileMode": "0999"}), codes.InvalidArgument, []string{"fileMode", "0999", "0001 to 0777"}},
		{"replication that is none", asked("wanted", map[string]string{"replication": "1"}), codes.InvalidArgument, []string{"replication", `"1"`, "three digits"}},
		{"replication without servers for it", asked("wanted", map[string]string{"replication": "002"}), codes.InvalidArgument, []string{"replication", "002", "servers"}},
		{"disk that no server has", asked("wanted", map[string]string{"diskType": "ssd"}), codes.InvalidArgument, []string{"diskType", "ssd", "hdd"}},
		{"bucket name that is none", asked("wanted", map[string]string{"bucketName": "Not_One"}), codes.InvalidArgument, []string{"bucketName", "Not_One", "lower-case"}},
		{"folder without a bucket", asked("wanted", map[string]string{"prefix": "a/b"}), codes.InvalidArgument, []string{"prefix", "a/b", "bucketName"}},
		{"another driver's parameter", asked("wanted", map[string]string{"cacheDir": "/tmp"}), codes.InvalidArgument, []string{"cacheDir", "seaweedfs-csi-driver", "--cache-dir"}},
		{"parameter of an object without claims", asked("wanted", map[string]string{"bucketName": "${pvc.name}", "onDelete": "retain"}), codes.InvalidArgument, []string{"pvc.name", "--extra-create-metadata"}},
		{"bucket of somebody else, by a template", with(map[string]string{"bucketName": "${pvc.name}", "onDelete": "retain"}), codes.AlreadyExists, []string{"theirs", "template", "${pvc.name}"}},
		{"bucket of somebody else, to be deleted", asked("wanted", map[string]string{"bucketName": "theirs"}), codes.InvalidArgument, []string{"theirs", "onDelete=retain", "onDelete=archive"}},
		{"size below what lies in the bucket", change(asked("wanted", map[string]string{"bucketName": "theirs", "onDelete": "retain"}), func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 5 }), codes.OutOfRange, []string{"wanted", "5 bytes", "theirs", "larger"}},
		{"bucket of another volume", asked("wanted", map[string]string{"bucketName": "taken", "onDelete": "retain"}), codes.AlreadyExists, []string{"taken", "wanted"}},
		{"another size under the same name", change(asked("taken", nil), func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 2 << 30 }), codes.AlreadyExists, []string{"taken", "1073741824", "2147483648"}},
		{"other access under the same name", change(asked("taken", nil), func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = []*csi.VolumeCapability{capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)}
		}), codes.AlreadyExists, []string{"taken", "single", "shared"}},
		{"other parameters under the same name", asked("taken", map[string]string{"uid": "7"}), codes.AlreadyExists, []string{"taken", "uid"}},
		{"block volume", change(asked("wanted", nil), func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = []*csi.VolumeCapability{{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}, AccessMode: oneWriter().GetAccessMode()}}
		}), codes.InvalidArgument, []string{"volumeMode: Filesystem"}},
		{"limit below what is required", change(asked("wanted", nil), func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 1 }), codes.OutOfRange, []string{"1073741824", "limit of 1"}},
		{"name with a line break", asked("a\nb", nil), codes.InvalidArgument, []string{"name", "control characters"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := e.s.controller.CreateVolume(ctx, row.req)
			refused(t, row.name, err, row.code, row.words...)
			t.Logf("%v", err)
			if now := e.volumes(t); now != volumes {
				t.Errorf("the volumes were %s and are %s", volumes, now)
			}
		})
	}
}

// expand: a size below what is there.
func (e *errorTable) expand(t *testing.T) {
	_, err := e.s.controller.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId: "taken", CapacityRange: &csi.CapacityRange{LimitBytes: 1 << 20},
	})
	refused(t, "a size below what is there", err, codes.OutOfRange, "taken", "1073741824", "1048576", "shrink")
	t.Logf("%v", err)
	in, err := e.in.run(t.Context(), "volume", "describe", "taken", "-o", "json")
	if err != nil || unmarshal[struct{ Size int64 }](t, in.stdout).Size != 1<<30 {
		t.Errorf("after the refusal: %s %v", in.stdout, err)
	}
}

// node: what a node refuses, and what it says of a cluster that does not let it in.
func (e *errorTable) node(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("second node", func(t *testing.T) {
		err := e.b.stage(t, "taken")
		refused(t, "a second node", err, codes.FailedPrecondition, "taken", host, "one node at a time")
		t.Logf("%v", err)
		noMountBelow(t, e.b.dir)
	})
	t.Run("access that the volume does not have", func(t *testing.T) {
		_, err := e.s.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
			VolumeId: "taken", StagingTargetPath: filepath.Join(e.in.work, "other"), VolumeCapability: capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER),
		})
		refused(t, "many writers of a volume of one node", err, codes.InvalidArgument, "taken", "single", "MULTI_NODE_MULTI_WRITER")
		t.Logf("%v", err)
	})
	own, err := readIssuer(e.in)
	if err != nil {
		t.Skipf("the authority's key: %v", err)
	}
	rows := map[string]struct {
		ends  time.Time
		words []string
	}{
		"certificate that has ended":          {time.Now().Add(-time.Minute), []string{"ended at", "holdfast up renews it"}},
		"clock far behind the cluster's":      {time.Now().Add(48 * time.Hour), []string{"begins at", "set the clock"}},
		"certificate of another installation": {time.Time{}, []string{"is none of the authority in"}},
	}
	// Each is told after half a minute, in which the certificate could be mended: so all
	// of them ask at once.
	var asked sync.WaitGroup
	answers := map[string]*error{}
	staging := func(name string) string { return e.b.path(strings.ReplaceAll(name, " ", "-")) }
	for name, row := range rows {
		signer, ends := own, row.ends
		if ends.IsZero() {
			var err error
			if signer, err = newIssuer(); err != nil {
				t.Fatal(err)
			}
			ends = time.Now().Add(time.Hour)
		}
		b, err := signer.pem("holdfast-node", ends)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(e.b.dir, filepath.Base(staging(name))+".pem")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		node, answer := e.b.anotherNode(t, e.in, file), new(error)
		answers[name] = answer
		asked.Go(func() {
			_, *answer = node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: "shared-one", StagingTargetPath: staging(name), VolumeCapability: oneWriter()})
		})
	}
	asked.Wait()
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			err := *answers[name]
			refused(t, name, err, codes.Unavailable, row.words...)
			t.Logf("%v", err)
			if _, err := os.Lstat(staging(name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", staging(name), err)
			}
			noMountBelow(t, e.b.dir)
		})
	}
}

// readers: a second pod of a volume of one pod, and a write where all read, each on a
// volume that is gone after it.
func (e *errorTable) readers(t *testing.T) {
	for name, row := range map[string]struct {
		mode csi.VolumeCapability_AccessMode_Mode
		try  func(t *testing.T, publish func(at string) error, pod, second string)
	}{
		"second pod": {csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, func(t *testing.T, publish func(string) error, pod, second string) {
			refused(t, "a second pod", publish(second), codes.FailedPrecondition, "one pod at a time", pod)
			if _, err := os.Lstat(second); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", second, err)
			}
		}},
		"write among readers": {csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, func(t *testing.T, _ func(string) error, pod, _ string) {
			for what, err := range map[string]error{
				"write": os.WriteFile(filepath.Join(pod, "file"), nil, 0o600), "mkdir": os.Mkdir(filepath.Join(pod, "dir"), 0o700),
			} {
				if !errors.Is(err, syscall.EROFS) {
					t.Errorf("%s: %v, want EROFS", what, err)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			vc := capabilityOf(row.mode)
			req := asked(volumeName(t), nil)
			req.VolumeCapabilities = []*csi.VolumeCapability{vc}
			made, err := e.s.controller.CreateVolume(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			id := made.GetVolume().GetVolumeId()
			at := func(what string) string { return filepath.Join(e.in.work, id+"-"+what) }
			if _, err := e.s.node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: at("staging"), VolumeCapability: vc}); err != nil {
				t.Fatal(err)
			}
			publish := func(target string) error {
				_, err := e.s.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: at("staging"), TargetPath: target, VolumeCapability: vc})
				return err
			}
			if err := publish(at("pod")); err != nil {
				t.Fatal(err)
			}
			row.try(t, publish, at("pod"), at("second"))
			_, err = e.s.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: at("pod")})
			if err == nil {
				_, err = e.s.node.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: at("staging")})
			}
			if err == nil {
				err = os.Remove(at("staging")) // rmdir: the kubelet's part
			}
			if err == nil {
				_, err = e.s.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// volumes are the ids of all volumes, with their sizes.
func (e *errorTable) volumes(t *testing.T) string {
	t.Helper()
	resp, err := e.s.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, v := range resp.GetEntries() {
		list = append(list, fmt.Sprint(v.GetVolume().GetVolumeId(), " ", v.GetVolume().GetCapacityBytes()))
	}
	return strings.Join(list, ", ")
}

func noMountBelow(t *testing.T, dir string) {
	t.Helper()
	if mounts, err := mountsBelow(dir); err != nil || len(mounts) > 0 {
		t.Errorf("a refused call has left the mounts %v (%v)", mounts, err)
	}
}
