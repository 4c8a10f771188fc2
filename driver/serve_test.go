package driver

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// lines is a log that tests read while it is written.
type lines struct {
	mu struct {
		sync.Mutex
		text bytes.Buffer
	}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.String()
}

// serve serves until the test ends, or until stop is called, which returns what
// Serve did.
func serve(t *testing.T, socket string, log *slog.Logger, services ...Service) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, ServeOptions{Log: log}, services...) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	conn := dial(t, socket)
	soon, late := context.WithTimeout(t.Context(), 10*time.Second)
	defer late()
	if _, err := csi.NewIdentityClient(conn).Probe(soon, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return stop
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+strings.TrimPrefix(socket, "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestServe(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	// What a killed process leaves.
	dead, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	must(t, err)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, dead.Close())

	stop := serve(t, "unix://"+socket, nil, NewIdentity(IdentityOptions{Version: "1"}))
	have, err := os.Lstat(socket)
	must(t, err)
	if have.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", have.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(socket), "*", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	err = Serve(t.Context(), socket, ServeOptions{})
	wantKind(t, "a second server", err, storage.InUse)
	resp, err := csi.NewIdentityClient(dial(t, socket)).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || resp.GetName() != Name || resp.GetVendorVersion() != "1" {
		t.Errorf("%v, %v", resp, err)
	}
	must(t, stop())
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestServeLeavesAFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("mine"), 0o600))
	wantKind(t, "serve", Serve(t.Context(), path, ServeOptions{}), storage.InUse)
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestEachFailureIsLoggedOnce: and reaches the caller as a code.
func TestEachFailureIsLoggedOnce(t *testing.T) {
	var out lines
	socket := filepath.Join(t.TempDir(), "csi.sock")
	serve(t, socket, slog.New(slog.NewJSONHandler(&out, nil)), NewIdentity(IdentityOptions{}), newController(memory.New()))
	req := ask("photos")
	req.Parameters = map[string]string{"oops": "parameter-value"}
	_, err := csi.NewControllerClient(dial(t, socket)).CreateVolume(t.Context(), req)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("err = %v", err)
	}
	got := out.String()
	if strings.Count(got, "call failed") != 1 || !strings.Contains(got, `"volume":"photos"`) || !strings.Contains(got, `"kind":"invalid"`) {
		t.Errorf("log: %s", got)
	}
	if strings.Contains(got, "parameter-value") {
		t.Errorf("the value is in the log: %s", got)
	}
}

// TestSecretsAreNeverLogged: every call that can carry one, when it succeeds and
// when it fails, with all that is logged at the lowest level.
func TestSecretsAreNeverLogged(t *testing.T) {
	var out lines
	b := newBench(t)
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.controller.log, b.node.log = log, log
	socket := filepath.Join(t.TempDir(), "csi.sock")
	serve(t, socket, log, NewIdentity(IdentityOptions{}), b.controller, b.node)
	conn := dial(t, socket)
	controller, node := csi.NewControllerClient(conn), csi.NewNodeClient(conn)

	const secret, context = "a-secret-value", "a-context-value"
	secrets, contexts := map[string]string{"key": secret}, map[string]string{"who": context}
	create := ask("photos")
	create.Secrets = secrets
	_, err := controller.CreateVolume(t.Context(), create)
	must(t, err)
	vc := mountCap(everyone)
	for _, volume := range []string{"photos", "no-such"} {
		staging, pod := b.path("staging-"+volume), b.path("pod-"+volume)
		_, validate := controller.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: volume, VolumeCapabilities: []*csi.VolumeCapability{vc}, Secrets: secrets, VolumeContext: contexts,
		})
		_, expand := controller.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 31}, Secrets: secrets,
		})
		_, stage := node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
			VolumeId: volume, StagingTargetPath: staging, VolumeCapability: vc, Secrets: secrets, VolumeContext: contexts, PublishContext: contexts,
		})
		_, publish := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: volume, StagingTargetPath: staging, TargetPath: pod, VolumeCapability: vc, Secrets: secrets, VolumeContext: contexts, PublishContext: contexts,
		})
		_, nodeExpand := node.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: volume, VolumePath: pod, Secrets: secrets})
		_, remove := controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: volume, Secrets: secrets})
		for what, err := range map[string]error{"validate": validate, "expand": expand, "stage": stage, "publish": publish, "node expand": nodeExpand} {
			if (err == nil) != (volume == "photos") {
				t.Errorf("%s of %s: %v", what, volume, err)
			}
		}
		if (remove == nil) == (volume == "photos") { // photos is staged
			t.Errorf("delete of %s: %v", volume, remove)
		}
	}
	got := out.String()
	for _, word := range []string{secret, context} {
		if strings.Contains(got, word) {
			t.Errorf("%s is in the log: %s", word, got)
		}
	}
	for _, op := range []string{"CreateVolume", "ValidateVolumeCapabilities", "NodeStageVolume", "NodePublishVolume", "DeleteVolume"} {
		if !strings.Contains(got, op) {
			t.Errorf("%s is not in the log, so this proves nothing: %s", op, got)
		}
	}
}

// TestLivenessIsNotReadiness: a process that lives says so to whoever would have it
// killed, whatever is away.
func TestLivenessIsNotReadiness(t *testing.T) {
	for _, away := range []error{nil, storage.Errorf(storage.Unavailable, "no")} {
		want := healthpb.HealthCheckResponse_SERVING
		if away != nil {
			want = healthpb.HealthCheckResponse_NOT_SERVING
		}
		i := NewIdentity(IdentityOptions{Ready: func(context.Context) error { return away }})
		resp, err := i.Probe(t.Context(), nil)
		if err != nil || !resp.GetReady().GetValue() {
			t.Errorf("probe: %v, %v", resp, err)
		}
		live, err := i.Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || live.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("live: %v, %v", live, err)
		}
		said, err := i.Check(t.Context(), &healthpb.HealthCheckRequest{Service: ReadyService})
		if err != nil || said.GetStatus() != want {
			t.Errorf("ready: %v, %v, want %v", said, err, want)
		}
		all, err := i.List(t.Context(), nil)
		if err != nil || len(all.GetStatuses()) != 2 || all.GetStatuses()[ReadyService].GetStatus() != want {
			t.Errorf("list: %v, %v", all, err)
		}
		_, err = i.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "other"})
		wantKind(t, "another service", err, storage.NotFound)
	}
}

// TestReadinessHasADeadline: whoever asks is told, though nobody answers.
func TestReadinessHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := NewIdentity(IdentityOptions{Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		begun := time.Now()
		wantKind(t, "ready", i.Ready(t.Context()), storage.Unavailable)
		if took := time.Since(begun); took != readyWithin {
			t.Errorf("told after %v", took)
		}
	})
}
