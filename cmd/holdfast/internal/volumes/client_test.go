package volumes

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage"
)

// fakeDriver is both services. It mounts nothing, so a target never shows in
// mountinfo.
type fakeDriver struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	volumes []*csi.Volume
	calls   []string
	// fail answers a call by its name with an error.
	fail map[string]error
	page int
}

func (d *fakeDriver) called(name, id string) error {
	d.calls = append(d.calls, name+" "+id)
	return d.fail[name]
}

func (d *fakeDriver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := d.called("create", r.GetName()); err != nil {
		return nil, err
	}
	v := &csi.Volume{
		VolumeId: "id-" + r.GetName(), CapacityBytes: r.GetCapacityRange().GetRequiredBytes(),
		VolumeContext: map[string]string{"name": r.GetName(), "bucket": "b-" + r.GetName(), "access": "shared"},
	}
	d.volumes = append(d.volumes, v)
	return &csi.CreateVolumeResponse{Volume: v}, nil
}

func (d *fakeDriver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if err := d.called("list", r.GetStartingToken()); err != nil {
		return nil, err
	}
	from := 0
	if r.GetStartingToken() != "" {
		if _, err := fmt.Sscan(r.GetStartingToken(), &from); err != nil {
			return nil, err
		}
	}
	resp := &csi.ListVolumesResponse{}
	for i := from; i < len(d.volumes) && i < from+d.page; i++ {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: d.volumes[i]})
	}
	if from+d.page < len(d.volumes) {
		resp.NextToken = fmt.Sprint(from + d.page)
	}
	return resp, nil
}

func (d *fakeDriver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: r.GetCapacityRange().GetRequiredBytes(), NodeExpansionRequired: true},
		d.called("expand", r.GetVolumeId())
}

func (d *fakeDriver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	return &csi.NodeExpandVolumeResponse{}, d.called("expand at", r.GetVolumePath())
}

func (d *fakeDriver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	return &csi.DeleteVolumeResponse{}, d.called("delete", r.GetVolumeId())
}

func (d *fakeDriver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	return &csi.NodeStageVolumeResponse{}, d.called("stage", r.GetVolumeId())
}

func (d *fakeDriver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	return &csi.NodePublishVolumeResponse{}, d.called("publish", r.GetTargetPath())
}

func (d *fakeDriver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := d.called("unpublish", r.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, os.Remove(r.GetTargetPath()) // as CSI has it
}

func (d *fakeDriver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	return &csi.NodeUnstageVolumeResponse{}, d.called("unstage", r.GetVolumeId())
}

// serve starts the fake and returns a client of it.
func serve(t *testing.T) (*fakeDriver, *Client) {
	t.Helper()
	// Not t.TempDir: its path is too long for a socket.
	tmp, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	dir := state.Dir(tmp)
	for _, d := range []string{dir.Run(), dir.Mounts(), dir.Staging()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d := &fakeDriver{page: 2, fail: map[string]error{}}
	server := grpc.NewServer()
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	for _, socket := range []string{dir.ControllerSocket(), dir.NodeSocket()} {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
	}
	t.Cleanup(server.Stop)
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return d, c
}

func TestCreateListFindDelete(t *testing.T) {
	d, c := serve(t)
	for _, name := range []string{"c", "a", "e", "b", "d"} {
		v, err := c.Create(t.Context(), name, 1<<30, storage.Shared, nil)
		if err != nil || v.Bucket != "b-"+name || v.Size != 1<<30 {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	all, err := c.List(t.Context())
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	if err != nil || strings.Join(names, "") != "abcde" {
		t.Errorf("over three pages: %v, %v", names, err)
	}
	byID, err := c.Find(t.Context(), "id-b")
	if err != nil || byID.Name != "b" {
		t.Errorf("by id: %+v, %v", byID, err)
	}
	if _, err := c.Find(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("no volume: %v", err)
	}
	if err := c.Delete(t.Context(), byID); err != nil || d.calls[len(d.calls)-1] != "delete id-b" {
		t.Errorf("delete: %v, %v", err, d.calls)
	}
	if _, err := c.Create(t.Context(), "f", 1, "mine", nil); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("an access that does not exist: %v", err)
	}
}

func TestMountRecords(t *testing.T) {
	d, c := serve(t)
	v, err := c.Create(t.Context(), "a", 1<<30, storage.Shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(string(c.dir), "target")
	if already, err := c.Mount(t.Context(), v, target); err != nil || already {
		t.Fatal(already, err)
	}
	records, err := ReadRecords(c.dir)
	if r, ok := records.At(target); err != nil || !ok || !r.Folder.Made || r.VolumeID != "id-a" {
		t.Errorf("recorded %+v, %v", records, err)
	}
	if v, err = c.Find(t.Context(), "a"); err != nil || !slices.Equal(v.Mounts, []string{target}) {
		t.Errorf("mounts %v, %v", v.Mounts, err)
	}
	if err := c.Delete(t.Context(), v); err == nil || !strings.Contains(err.Error(), target) {
		t.Errorf("deleted although mounted: %v", err)
	}
	if _, err := c.Expand(t.Context(), v, 2<<30); err != nil || d.calls[len(d.calls)-1] != "expand at "+target {
		t.Errorf("expanded by %v, %v", d.calls, err)
	}
	if _, err := c.Unmount(t.Context(), target); err != nil {
		t.Error(err)
	}
	if want := []string{"unpublish " + target, "unstage id-a"}; !slices.Equal(d.calls[len(d.calls)-2:], want) {
		t.Errorf("unmounted by %v, want %v", d.calls, want)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the folder that the mount made is still there")
	}
	if records, err := ReadRecords(c.dir); err != nil || len(records) != 0 {
		t.Errorf("still recorded: %v, %v", records, err)
	}
}

func TestMountOnAFolderThatWasThere(t *testing.T) {
	_, c := serve(t)
	v, err := c.Create(t.Context(), "a", 1<<30, storage.Shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(string(c.dir), "mine")
	if err := os.Mkdir(target, 0o710); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mount(t.Context(), v, target); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unmount(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o710 {
		t.Errorf("the folder was not put back: %v", err)
	}
}

func TestMountThatFailsLeavesNothing(t *testing.T) {
	d, c := serve(t)
	v, err := c.Create(t.Context(), "a", 1<<30, storage.Shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.fail["publish"] = status.Error(codes.Internal, "no")
	target := filepath.Join(string(c.dir), "target")
	if _, err := c.Mount(t.Context(), v, target); err == nil || err.Error() != "no" {
		t.Errorf("the driver's reason is %v", err)
	}
	if !slices.Contains(d.calls, "unstage id-a") {
		t.Errorf("it stays staged: %v", d.calls)
	}
	if records, err := ReadRecords(c.dir); err != nil || len(records) != 0 {
		t.Errorf("recorded: %v, %v", records, err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the folder is left")
	}
}

func TestTargets(t *testing.T) {
	_, c := serve(t)
	v, err := c.Create(t.Context(), "a", 1<<30, storage.Shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		dir + "/file":      "is a file",
		dir + "/link":      "symbolic link",
		dir + "/no/parent": "parent",
		dir:                "not empty",
		"/":                "cannot",
		"/proc":            "mount point already",
	} {
		if _, err := c.Mount(t.Context(), v, target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c, err := Dial(state.Dir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.List(t.Context()); err == nil || !strings.Contains(err.Error(), "holdfast up") {
		t.Errorf("without a driver: %v", err)
	}
}
