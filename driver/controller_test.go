package driver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

func newController(s *memory.Store) *Controller {
	return NewController(ControllerDeps{Records: s, Buckets: s, Access: s, Capacity: s, Place: s})
}

func wantKind(t *testing.T, what string, err error, want storage.Kind) {
	t.Helper()
	if err == nil || storage.KindOf(err) != want {
		t.Errorf("%s = %v (%v), want %v", what, err, storage.KindOf(err), want)
	}
}

func TestCreateIsRepeatable(t *testing.T) {
	s := memory.New()
	c := newController(s)
	first, err := c.CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	keys, err := s.GetRecord(t.Context(), "photos")
	must(t, err)
	second, err := c.CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	if first.String() != second.String() {
		t.Errorf("%v\n%v", first, second)
	}
	if v := first.GetVolume(); v.GetCapacityBytes() != 1<<30 || v.GetVolumeContext()["bucket"] != "photos" ||
		v.GetVolumeContext()["access"] != "shared" || v.GetVolumeContext()["name"] != "photos" {
		t.Errorf("volume = %v", v)
	}
	if !s.Allowed(keys.Keys, "photos") {
		t.Error("the repeated call ended the keys")
	}
}

func TestCreateRefuses(t *testing.T) {
	c := newController(memory.New())
	for what, test := range map[string]struct {
		edit func(*csi.CreateVolumeRequest)
		want storage.Kind
	}{
		"no name":      {func(r *csi.CreateVolumeRequest) { r.Name = "" }, storage.Invalid},
		"long name":    {func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("x", 129) }, storage.Invalid},
		"no mode":      {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }, storage.Invalid},
		"nil mode":     {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{nil} }, storage.Invalid},
		"unknown mode": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{mountCap(99)} }, storage.Invalid},
		"block": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities[0].AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}, storage.Invalid},
		"parameter": {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"x": "y"} }, storage.Invalid},
		"mutable":   {func(r *csi.CreateVolumeRequest) { r.MutableParameters = map[string]string{"x": "y"} }, storage.Invalid},
		"source":    {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = &csi.VolumeContentSource{} }, storage.Invalid},
		"negative":  {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{RequiredBytes: -1} }, storage.OutOfRange},
		"over": {func(r *csi.CreateVolumeRequest) {
			r.CapacityRange = &csi.CapacityRange{RequiredBytes: 2, LimitBytes: 1}
		}, storage.OutOfRange},
	} {
		req := ask("photos")
		test.edit(req)
		_, err := c.CreateVolume(t.Context(), req)
		wantKind(t, what, err, test.want)
	}
	req := ask("photos")
	req.Parameters = map[string]string{"csi.storage.k8s.io/pvc/name": "x"}
	_, err := c.CreateVolume(t.Context(), req)
	must(t, err)
}

func TestCreateWithTheSameNameAndOtherWishes(t *testing.T) {
	c := newController(memory.New())
	req := ask("photos", writer)
	req.CapacityRange = &csi.CapacityRange{RequiredBytes: 5 << 30}
	_, err := c.CreateVolume(t.Context(), req)
	must(t, err)
	for what, edit := range map[string]func(*csi.CreateVolumeRequest){
		"larger":  func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 6 << 30 },
		"smaller": func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{LimitBytes: 4 << 30} },
		"shared":  func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = []*csi.VolumeCapability{mountCap(everyone)} },
	} {
		other := ask("photos", writer)
		other.CapacityRange = &csi.CapacityRange{RequiredBytes: 5 << 30}
		edit(other)
		_, err := c.CreateVolume(t.Context(), other)
		wantKind(t, what, err, storage.Exists)
	}
	_, err = c.CreateVolume(t.Context(), ask("photos", writer))
	must(t, err)
}

func TestTwoNamesWithOneID(t *testing.T) {
	c := newController(memory.New())
	id := VolumeID("Photos")
	_, err := c.CreateVolume(t.Context(), ask("Photos"))
	must(t, err)
	_, err = c.CreateVolume(t.Context(), ask(string(id)))
	wantKind(t, "the second name", err, storage.Exists)
}

func TestBothBucketsTaken(t *testing.T) {
	s := memory.New()
	other := otherBucketOf("photos", "photos")
	must(t, s.CreateBucket(t.Context(), "photos"))
	must(t, s.CreateBucket(t.Context(), other))
	_, err := newController(s).CreateVolume(t.Context(), ask("photos"))
	wantKind(t, "create", err, storage.Exists)
	if err != nil && !strings.Contains(err.Error(), string(other)) {
		t.Errorf("%v does not name the bucket %s", err, other)
	}
	if records, _ := s.ListRecords(t.Context(), "", 1); len(records) > 0 {
		t.Errorf("left behind: %v", records)
	}
}

func TestSizes(t *testing.T) {
	for _, test := range []struct{ required, limit, want int64 }{
		{0, 0, 1 << 30}, {5, 0, 5}, {5, 9, 5}, {0, 9, 9}, {0, 2 << 30, 1 << 30},
	} {
		got, err := sizeOf(&csi.CapacityRange{RequiredBytes: test.required, LimitBytes: test.limit})
		if err != nil || got != test.want {
			t.Errorf("%+v → %d, %v", test, got, err)
		}
	}
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		modes []mode
		want  storage.AccessMode
	}{
		{[]mode{everyone}, storage.Shared},
		{[]mode{writer}, storage.Single},
		{[]mode{singleWriter}, storage.Single},
		{[]mode{multiWriter}, storage.Single},
		{[]mode{oneOfMany}, storage.Single},
		{[]mode{reader}, storage.ReadOnlyMode},
		{[]mode{readers}, storage.ReadOnlyMode},
		{[]mode{writer, everyone}, storage.Shared},
		{[]mode{writer, readers}, storage.Shared},
		{[]mode{writer, reader}, storage.Single},
	} {
		var caps []*csi.VolumeCapability
		for _, m := range test.modes {
			caps = append(caps, mountCap(m))
		}
		got, err := accessOf(caps)
		if err != nil || got != test.want {
			t.Errorf("%v → %v, %v, want %v", test.modes, got, err, test.want)
		}
		for _, m := range test.modes {
			if !serves(got, m) {
				t.Errorf("%s does not serve %s, which it was made for", got, m)
			}
		}
	}
}

func TestValidateTellsTheTruth(t *testing.T) {
	c := newController(memory.New())
	made, err := c.CreateVolume(t.Context(), ask("photos", writer))
	must(t, err)
	for _, test := range []struct {
		edit func(*csi.ValidateVolumeCapabilitiesRequest)
		want bool
	}{
		{func(*csi.ValidateVolumeCapabilitiesRequest) {}, true},
		{func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeContext = made.GetVolume().GetVolumeContext() }, true},
		{func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeContext = map[string]string{"bucket": "x"} }, false},
		{func(r *csi.ValidateVolumeCapabilitiesRequest) { r.Parameters = map[string]string{"x": "y"} }, false},
		{func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeCapabilities[0] = mountCap(everyone) }, false},
		{func(r *csi.ValidateVolumeCapabilitiesRequest) { r.VolumeCapabilities[0] = mountCap(reader) }, true},
	} {
		req := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "photos", VolumeCapabilities: []*csi.VolumeCapability{mountCap(writer)}}
		test.edit(req)
		resp, err := c.ValidateVolumeCapabilities(t.Context(), req)
		must(t, err)
		if (resp.GetConfirmed() != nil) != test.want || (resp.GetMessage() == "") != test.want {
			t.Errorf("%v → %v", req, resp)
		}
	}
	_, err = c.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "nobody", VolumeCapabilities: []*csi.VolumeCapability{mountCap(writer)}})
	wantKind(t, "missing volume", err, storage.NotFound)
}

func TestDeleteWhileInUse(t *testing.T) {
	s := memory.New()
	c := newController(s)
	_, err := c.CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	lease(t, s, "node-7")
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	wantKind(t, "delete", err, storage.InUse)
	if err != nil && !strings.Contains(err.Error(), "node-7") {
		t.Errorf("%v does not name the node", err)
	}
	if r, err := s.GetRecord(t.Context(), "photos"); err != nil || r.Phase != storage.Ready {
		t.Errorf("record = %v, %v", r, err)
	}
	_, err = updateRecord(t.Context(), s, "photos", func(r *storage.Record) error { r.Return("node-7"); return nil })
	must(t, err)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	checkNothing(t, s)
}

func TestDeleteMissing(t *testing.T) {
	c := newController(memory.New())
	for _, id := range []string{"photos", "../x", strings.Repeat("y", 200)} {
		if _, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{})
	wantKind(t, "no id", err, storage.Invalid)
}

// slowBuckets waits within CreateBucket.
type slowBuckets struct {
	*memory.Store
	entered, leave chan struct{}
}

func (s *slowBuckets) CreateBucket(ctx context.Context, b storage.BucketName) error {
	s.entered <- struct{}{}
	<-s.leave
	return s.Store.CreateBucket(ctx, b)
}

// TestCreateAndDeleteShareAKey: the name and the id derived from it.
func TestCreateAndDeleteShareAKey(t *testing.T) {
	slow := &slowBuckets{memory.New(), make(chan struct{}), make(chan struct{})}
	c := NewController(ControllerDeps{Records: slow, Buckets: slow, Access: slow})
	done := make(chan error)
	go func() {
		_, err := c.CreateVolume(t.Context(), ask("My Photos"))
		done <- err
	}()
	<-slow.entered
	_, err := c.CreateVolume(t.Context(), ask("My Photos"))
	wantKind(t, "second creation", err, storage.Busy)
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: string(VolumeID("My Photos"))})
	wantKind(t, "deletion", err, storage.Busy)
	if got := status.Code(toStatus(err)); got != codes.Aborted {
		t.Errorf("code %v", got)
	}
	close(slow.leave)
	must(t, <-done)
}

func TestExpand(t *testing.T) {
	s := memory.New()
	c := newController(s)
	_, err := c.CreateVolume(t.Context(), ask("photos"))
	must(t, err)
	for _, test := range []struct{ required, limit, want int64 }{
		{2 << 30, 0, 2 << 30}, {2 << 30, 0, 2 << 30}, {1 << 30, 0, 2 << 30}, {0, 5 << 30, 2 << 30},
	} {
		resp, err := c.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: "photos", CapacityRange: &csi.CapacityRange{RequiredBytes: test.required, LimitBytes: test.limit},
		})
		if err != nil || resp.GetCapacityBytes() != test.want || resp.GetNodeExpansionRequired() {
			t.Errorf("%+v → %v, %v", test, resp, err)
		}
	}
	for what, test := range map[string]struct {
		req  *csi.ControllerExpandVolumeRequest
		want storage.Kind
	}{
		"below":    {&csi.ControllerExpandVolumeRequest{VolumeId: "photos", CapacityRange: &csi.CapacityRange{LimitBytes: 1 << 30}}, storage.OutOfRange},
		"no range": {&csi.ControllerExpandVolumeRequest{VolumeId: "photos"}, storage.Invalid},
		"missing":  {&csi.ControllerExpandVolumeRequest{VolumeId: "nobody", CapacityRange: &csi.CapacityRange{RequiredBytes: 1}}, storage.NotFound},
	} {
		_, err := c.ControllerExpandVolume(t.Context(), test.req)
		wantKind(t, what, err, test.want)
	}
}

func TestListInPages(t *testing.T) {
	c := newController(memory.New())
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("volume-%d", i)
		_, err := c.CreateVolume(t.Context(), ask(name))
		must(t, err)
		want = append(want, name)
	}
	for limit := range int32(9) {
		var got []string
		for token := ""; ; {
			resp, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: limit, StartingToken: token})
			must(t, err)
			if limit > 0 && len(resp.GetEntries()) > int(limit) {
				t.Fatalf("%d entries, at most %d were asked for", len(resp.GetEntries()), limit)
			}
			for _, e := range resp.GetEntries() {
				got = append(got, e.GetVolume().GetVolumeId())
			}
			if token = resp.GetNextToken(); token == "" {
				break
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	for _, token := range []string{"x", "invalid-token", "!", "Zm9v"} {
		_, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: token})
		if status.Code(err) != codes.Aborted {
			t.Errorf("token %q: %v", token, err)
		}
	}
	_, err := c.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	wantKind(t, "negative", err, storage.Invalid)
}

func TestCapacity(t *testing.T) {
	s := memory.New()
	s.SetSpace(storage.Space{Total: 10, Free: 4})
	c := newController(s)
	resp, err := c.GetCapacity(t.Context(), &csi.GetCapacityRequest{})
	if err != nil || resp.GetAvailableCapacity() != 4 {
		t.Errorf("%v, %v", resp, err)
	}
	// What may be made does not depend on what is free, so nothing may wait for room as large
	// as its claim.
	largest := resp.GetMaximumVolumeSize().GetValue()
	large := ask("large")
	large.CapacityRange = &csi.CapacityRange{RequiredBytes: largest}
	if _, err := c.CreateVolume(t.Context(), large); err != nil || largest <= 4 {
		t.Errorf("the largest volume is said to have %d bytes, and one of that size: %v", largest, err)
	}
	s.SetSpace(storage.Space{Total: 10})
	if resp, err = c.GetCapacity(t.Context(), &csi.GetCapacityRequest{}); err != nil || resp.GetAvailableCapacity() != 0 || resp.GetMaximumVolumeSize() != nil {
		t.Errorf("with nothing free: %v, %v", resp, err)
	}
	// What CreateVolume refuses for its parameters does not wait for room: the refusal names
	// them, and the scheduler would say that there is not enough storage.
	resp, err = c.GetCapacity(t.Context(), &csi.GetCapacityRequest{Parameters: map[string]string{"bucketNam": "photos"}})
	if err != nil || resp.GetAvailableCapacity() != 0 || resp.GetMaximumVolumeSize().GetValue() != largest {
		t.Errorf("with a misspelled parameter: %v, %v", resp, err)
	}
	without := NewController(ControllerDeps{Records: s, Buckets: s, Access: s})
	caps, err := without.ControllerGetCapabilities(t.Context(), nil)
	must(t, err)
	for _, have := range caps.GetCapabilities() {
		if have.GetRpc().GetType() == csi.ControllerServiceCapability_RPC_GET_CAPACITY {
			t.Error("GET_CAPACITY offered without a measure")
		}
	}
}

// lease gives a node a lease.
func lease(t *testing.T, s *memory.Store, node string) {
	t.Helper()
	_, err := updateRecord(t.Context(), s, "photos", func(r *storage.Record) error {
		r.Grant(node, storage.Lease{}, time.Now())
		return nil
	})
	must(t, err)
}
