package driver

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-csi/holdfast/driver/keyspb"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// FuzzVolumeID: what is derived from a name is valid, and two volumes that both
// come to be share neither an id, nor a bucket, nor a user, nor keys.
func FuzzVolumeID(f *testing.F) {
	for _, pair := range [][2]string{
		{"photos", "Photos"},
		{"Photos", string(VolumeID("Photos"))},
		{"a..b", "a.b"},
		{longName, sameUser()},
		{longName, longName + "y"},
		{"photos", string(otherBucketOf("photos", "photos"))},
		{"xn--a", "v-xn-a"},
		{"127.0.0.1", "1"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		s := memory.New()
		one, okOne := createNamed(t, s, a)
		two, okTwo := createNamed(t, s, b)
		if !okOne || !okTwo {
			return
		}
		if a == b {
			if one.ID != two.ID || one.Keys != two.Keys {
				t.Errorf("%q asked for twice: %v and %v", a, one.ID, two.ID)
			}
			return
		}
		if one.ID == two.ID || one.Bucket == two.Bucket || one.User == two.User {
			t.Errorf("%q and %q share something: ids %s %s, buckets %s %s, users %s %s",
				a, b, one.ID, two.ID, one.Bucket, two.Bucket, one.User, two.User)
		}
		if !s.Allowed(one.Keys, one.Bucket) || s.Allowed(one.Keys, two.Bucket) {
			t.Errorf("%q: its keys do not work, or open the bucket of %q", a, b)
		}
	})
}

// createNamed makes the volume, or checks that it was refused for a reason.
func createNamed(t *testing.T, s *memory.Store, name string) (storage.Record, bool) {
	t.Helper()
	resp, err := newController(s).CreateVolume(t.Context(), ask(name))
	if err != nil {
		if k := storage.KindOf(err); k != storage.Invalid && k != storage.Exists {
			t.Fatalf("%q: %v (%v)", name, err, k)
		}
		return storage.Record{}, false
	}
	r, err := s.GetRecord(t.Context(), storage.VolumeID(resp.GetVolume().GetVolumeId()))
	must(t, err)
	if _, err := checkVolumeID(string(r.ID)); err != nil || r.Bucket.Check() != nil || len(r.User) > maxUser || r.Name != name {
		t.Fatalf("%q became id %q, bucket %q, user %q, name %q: %v", name, r.ID, r.Bucket, r.User, r.Name, err)
	}
	return r, true
}

// longName has a user name that is cut.
var longName = strings.Repeat("x", 60)

// sameUser is a name that is short enough to stay, and looks like the cut one.
func sameUser() string {
	return strings.TrimPrefix(withHash(userPrefix+longName, userPrefix+longName, maxUser), userPrefix)
}

// unexpected are the codes that say nothing to a caller.
var unexpected = map[codes.Code]bool{
	codes.Unknown: true, codes.Internal: true, codes.DataLoss: true, codes.PermissionDenied: true, codes.Unauthenticated: true,
	codes.DeadlineExceeded: true, codes.Canceled: true,
}

// FuzzCSIRequests: whatever arrives on the sockets is answered, without a panic, by
// a code that a caller can act on, and touches no volume that it does not name.
func FuzzCSIRequests(f *testing.F) {
	services := []*grpc.ServiceDesc{&csi.Identity_ServiceDesc, &csi.Controller_ServiceDesc, &csi.Node_ServiceDesc, &keyspb.VolumeKeys_ServiceDesc}
	var names []string
	for _, s := range services {
		for _, m := range s.Methods {
			names = append(names, m.MethodName)
		}
	}
	for _, seed := range requests() {
		raw, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		method := slices.Index(names, strings.TrimSuffix(string(seed.ProtoReflect().Descriptor().Name()), "Request"))
		if method < 0 {
			f.Fatalf("no method takes %T", seed)
		}
		f.Add(byte(method), raw)
	}
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { removeFolders(dir) })
	f.Fuzz(func(t *testing.T, method byte, raw []byte) {
		store, mounter := memory.New(), newFakeMounter()
		c := newController(store)
		for _, name := range []string{"photos", "others"} {
			_, err := c.CreateVolume(t.Context(), ask(name))
			must(t, err)
		}
		node, err := NewNode(NodeDeps{Records: store, Mounter: mounter, Table: mounter}, NodeOptions{NodeID: "node-1"})
		must(t, err)
		servers := []any{NewIdentity(IdentityOptions{}), c, node, NewKeys(c)}
		var methods []grpc.MethodDesc
		var owners []any
		for i, s := range services {
			for _, m := range s.Methods {
				methods, owners = append(methods, m), append(owners, servers[i])
			}
		}
		m := int(method) % len(methods)
		named := false
		_, err = methods[m].Handler(owners[m], t.Context(), func(req any) error {
			message := req.(proto.Message)
			if proto.Unmarshal(raw, message) != nil {
				proto.Reset(message)
			}
			confine(message.ProtoReflect(), dir)
			named = strings.Contains(message.ProtoReflect().Interface().(interface{ String() string }).String(), "others")
			return nil
		}, intercept(slog.New(slog.DiscardHandler), nil))
		if code := status.Code(err); unexpected[code] {
			t.Errorf("%s: %v", methods[m].MethodName, err)
		}
		if r, err := store.GetRecord(context.WithoutCancel(t.Context()), "others"); !named && (err != nil || !store.Allowed(r.Keys, "others")) {
			t.Errorf("%s reached another volume: %v", methods[m].MethodName, err)
		}
	})
}

// confine moves the absolute paths of a request below dir.
func confine(m protoreflect.Message, dir string) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(field.Name())
		if field.Kind() == protoreflect.StringKind && !field.IsList() && !field.IsMap() &&
			strings.HasSuffix(name, "path") && filepath.IsAbs(v.String()) && filepath.Clean(v.String()) != "/" {
			m.Set(field, protoreflect.ValueOfString(filepath.Join(dir, filepath.Clean(v.String()))))
		}
		return true
	})
}

// removeFolders removes what the requests have made: empty folders.
func removeFolders(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		removeFolders(filepath.Join(dir, e.Name()))
	}
	_ = os.Remove(dir)
}

// requests are the seeds: one of each kind that gets far.
func requests() []proto.Message {
	return []proto.Message{
		&csi.ProbeRequest{},
		&csi.CreateVolumeRequest{
			Name: "new", CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 30, LimitBytes: 2 << 30},
			VolumeCapabilities: []*csi.VolumeCapability{mountCap(everyone), mountCap(writer)},
			Parameters:         map[string]string{"csi.storage.k8s.io/pvc/name": "x"}, Secrets: map[string]string{"s": "t"},
		},
		&csi.DeleteVolumeRequest{VolumeId: "photos"},
		&csi.ListVolumesRequest{MaxEntries: 1, StartingToken: token("a")},
		&csi.ValidateVolumeCapabilitiesRequest{VolumeId: "photos", VolumeCapabilities: []*csi.VolumeCapability{mountCap(writer)}},
		&csi.GetCapacityRequest{Parameters: map[string]string{"a": "b"}},
		&csi.ControllerExpandVolumeRequest{VolumeId: "photos", CapacityRange: &csi.CapacityRange{RequiredBytes: 2 << 30}},
		&csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: "/stage", VolumeCapability: mountCap(writer)},
		&csi.NodePublishVolumeRequest{VolumeId: "photos", StagingTargetPath: "/stage", TargetPath: "/pod", VolumeCapability: mountCap(writer), Readonly: true},
		&csi.NodeUnpublishVolumeRequest{VolumeId: "photos", TargetPath: "/pod"},
		&csi.NodeUnstageVolumeRequest{VolumeId: "photos", StagingTargetPath: "/stage"},
		&csi.NodeGetVolumeStatsRequest{VolumeId: "photos", VolumePath: "/pod"},
		&csi.NodeExpandVolumeRequest{VolumeId: "photos", VolumePath: "/pod", CapacityRange: &csi.CapacityRange{RequiredBytes: 1}},
		&keyspb.RotateRequest{VolumeId: "photos", Overlap: 1, Replace: "KEY"},
		// Paths that no file system takes.
		&csi.NodeUnpublishVolumeRequest{VolumeId: "photos", TargetPath: "/a\x00b"},
		&csi.NodeUnpublishVolumeRequest{VolumeId: "photos", TargetPath: "/" + strings.Repeat("x", 300)},
		&csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: "/" + strings.Repeat("x", 300), VolumeCapability: mountCap(writer)},
		&csi.NodeStageVolumeRequest{VolumeId: "photos", StagingTargetPath: "/a\x00b", VolumeCapability: mountCap(writer)},
	}
}
