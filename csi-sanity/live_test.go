package csisanity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Upstream's livenessprobe has a process killed that does not say it is ready: so with
// the cluster away controller and node live on, and say elsewhere that they wait. What
// is staged can be published meanwhile, and taken away.
func TestLivenessWithoutTheCluster(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	v.mount(t)
	stage := v.stageRequest(t)
	at := in.mustStatus(t).Endpoints
	live := func(what, socket string, ready healthpb.HealthCheckResponse_ServingStatus) error {
		conn := dialSocket(t, socket)
		resp, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
		if err != nil || !resp.GetReady().GetValue() {
			t.Errorf("%s would be killed: %v, %v", what, resp, err)
		}
		said, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "ready"})
		if err == nil && said.GetStatus() != ready {
			err = fmt.Errorf("%s: %v, want %v", what, said.GetStatus(), ready)
		}
		return err
	}
	both := func(controller healthpb.HealthCheckResponse_ServingStatus) error {
		return errors.Join(live("the controller", at.Controller, controller), live("the node", at.Node, healthpb.HealthCheckResponse_SERVING))
	}
	if err := both(healthpb.HealthCheckResponse_SERVING); err != nil {
		t.Error(err)
	}
	before := in.mustStatus(t)
	thaw := in.freeze(t)
	defer thaw()
	begun := time.Now()
	if err := both(healthpb.HealthCheckResponse_NOT_SERVING); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("told after %v", took)
	}
	node, pod := in.nodeService(t), filepath.Join(in.work, v.name+"-pod")
	for range 2 {
		if _, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: stage.GetStagingTargetPath(), TargetPath: pod, VolumeCapability: stage.GetVolumeCapability()}); err != nil {
			t.Errorf("publish: %v", err)
		}
	}
	if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: pod}); err != nil {
		t.Errorf("unpublish: %v", err)
	}
	thaw()
	eventually(t, time.Minute, func() error { return both(healthpb.HealthCheckResponse_SERVING) })
	for _, name := range []string{"controller", "node"} {
		if was, is := before.component(t, name), in.mustStatus(t).component(t, name); was.process != is.process {
			t.Errorf("%s was started again: %+v, %+v", name, was, is)
		}
	}
}

// requiresRepublish has the kubelet publish what is published, again and again: it
// changes nothing, takes milliseconds and fills no log.
func TestRepublish(t *testing.T) {
	const times = 100
	in := shared(t)
	v := in.create(t, volumeName(t))
	v.mount(t)
	stage := v.stageRequest(t)
	node, pod := in.nodeService(t), filepath.Join(in.work, v.name+"-pod")
	publish := func() error {
		_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.Bucket, StagingTargetPath: stage.GetStagingTargetPath(), TargetPath: pod, VolumeCapability: stage.GetVolumeCapability()})
		return err
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: pod}); err != nil {
			t.Error(err)
		}
	}()
	f, err := os.Create(filepath.Join(pod, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	logged := func() int64 {
		info, err := os.Stat(filepath.Join(in.dir, "logs", "node.log"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	size, begun := logged(), time.Now()
	for range times {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begun) / times
	t.Logf("published again in %v each", took)
	if took > 100*time.Millisecond {
		t.Errorf("published again in %v each", took)
	}
	if grown := logged() - size; grown > 4<<10 { // others use the same installation
		t.Errorf("the log has grown by %d bytes", grown)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Errorf("what was open: %v", err)
	}
	if mounts, err := mountsBelow(pod); err != nil || len(mounts) != 1 {
		t.Errorf("mounted at %v, %v", mounts, err)
	}
}
