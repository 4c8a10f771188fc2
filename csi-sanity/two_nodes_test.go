package csisanity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
)

// secondNode is another node of an installation's cluster, on the same machine:
// a keeper, a mounter and a node process of its own.
type secondNode struct {
	dir  string
	node csi.NodeClient
}

// startNode starts one. It needs root, as its keeper does. Its processes run as
// those of the installation do, with the same certificates.
func startNode(t *testing.T, in *installation, id string) *secondNode {
	t.Helper()
	return startNodeWith(t, in, id, nil, nil)
}

// startNodeWith gives the node process and the mounter some more flags.
func startNodeWith(t *testing.T, in *installation, id string, nodeFlags, mounterFlags []string) *secondNode {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("the keeper of the second node needs root")
	}
	s := in.mustStatus(t)
	node, served := s.component(t, "node").PID, s.component(t, "mounter").PID
	info, err := os.Stat(fmt.Sprintf("/proc/%d", served))
	if err != nil {
		t.Fatal(err)
	}
	mounter := int(info.Sys().(*syscall.Stat_t).Uid)
	n := &secondNode{dir: filepath.Join(filepath.Dir(in.dir), id)}
	for _, name := range []string{"", "mounter", "mounts"} {
		if err := os.Mkdir(filepath.Join(n.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(n.dir, "mounter"), mounter, mounter); err != nil {
		t.Fatal(err)
	}
	cluster := func(pid int) []string { return append([]string{"--filer", s.Endpoints.Filer}, certificates(t, pid)...) }
	run, socket := filepath.Join(n.dir, "run"), filepath.Join(n.dir, "csi.sock")
	n.start(t, 0, "holdfast-mount", "keeper", "--run-dir", run, "--node-uid", "0", "--mounter-uid", fmt.Sprint(mounter), "--allow-root", n.dir)
	eventually(t, time.Minute, func() error { _, err := os.Stat(filepath.Join(run, "keeper-mounter.sock")); return err })
	n.start(t, uint32(mounter), "holdfast-mount", append([]string{"serve", "--run-dir", run, "--state-dir", filepath.Join(n.dir, "mounter")}, append(cluster(served), mounterFlags...)...)...)
	n.start(t, 0, "holdfast", append([]string{"node", "--socket", socket, "--node-id", id, "--lease", testLease.String(), "--keeper-socket", filepath.Join(run, "keeper-node.sock")}, append(cluster(node), nodeFlags...)...)...)
	conn := dialSocket(t, socket)
	eventually(t, time.Minute, func() error {
		_, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
		return err
	})
	n.node = csi.NewNodeClient(conn)
	return n
}

// anotherNode starts one more node process beside, with the certificate in a file.
func (n *secondNode) anotherNode(t *testing.T, in *installation, cert string) csi.NodeClient {
	t.Helper()
	socket := strings.TrimSuffix(cert, ".pem") + ".sock"
	n.start(t, 0, "holdfast", "node", "--socket", socket, "--node-id", filepath.Base(socket), "--keeper-socket", filepath.Join(n.dir, "run", "keeper-node.sock"),
		"--filer", in.mustStatus(t).Endpoints.Filer, "--tls-ca", filepath.Join(in.dir, "pki", "ca.crt"), "--tls-cert", cert)
	eventually(t, time.Minute, func() error { _, err := os.Stat(socket); return err })
	return csi.NewNodeClient(dialSocket(t, socket))
}

func dialSocket(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// certificates are the flags of a process that let it into a closed cluster.
func certificates(t *testing.T, pid int) (flags []string) {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(string(line), "\x00")
	for i, arg := range args[:len(args)-1] {
		if strings.HasPrefix(arg, "--tls-") {
			flags = append(flags, arg, args[i+1])
		}
	}
	return flags
}

// start starts one of its processes, which ends with the test.
func (n *secondNode) start(t *testing.T, uid uint32, program string, args ...string) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(filepath.Join(n.dir, "log")); err == nil && program == "holdfast" {
				t.Logf("--- the second node\n%s", b[max(0, len(b)-4000):])
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		ended := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
	})
}

func (n *secondNode) path(name string) string { return filepath.Join(n.dir, "mounts", name) }

func singleWriter() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func (n *secondNode) stage(t *testing.T, volume string) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := n.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: volume, StagingTargetPath: n.path("staging"), VolumeCapability: singleWriter(),
	})
	return err
}

func (n *secondNode) unstage(ctx context.Context, volume string) error {
	_, err := n.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: volume, StagingTargetPath: n.path("staging")})
	return err
}

// publish binds the volume to a folder, read-only if asked.
func (n *secondNode) publish(t *testing.T, volume, at string, readOnly bool) string {
	t.Helper()
	_, err := n.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: volume, StagingTargetPath: n.path("staging"), TargetPath: n.path(at), VolumeCapability: singleWriter(), Readonly: readOnly,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := n.node.NodeUnpublishVolume(context.WithoutCancel(t.Context()), &csi.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: n.path(at)})
		if err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return n.path(at)
}

// testLease is short, for tests; a takeover takes twice as long.
const testLease = 6 * time.Second

// A volume of one node is refused to another one, which is told who has it, until it
// is given back or the holder has been silent for long enough. A holder that comes
// back after that changes nothing, its applications get ESTALE, and what they had
// written is kept on it.
func TestFence(t *testing.T) {
	in := begin(t)
	apart(t)
	in.environment = []string{"HOLDFAST_LEASE=" + testLease.String()}
	in.up(t)
	b := startNode(t, in, "node-b")
	v := in.create(t, volumeName(t), "--access", "single")
	id := v.describe(t).ID
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}

	// Handed over in order.
	dir := v.mount(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d := v.describe(t); len(d.Leases) != 1 || d.Leases[0].Node != host || d.Leases[0].Since.IsZero() {
		t.Errorf("describe: %+v", d)
	}
	err = b.stage(t, id)
	if grpcstatus.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), host) {
		t.Fatalf("staged on a second node: %v, want FailedPrecondition that names %s", err, host)
	}
	t.Logf("refused: %v", err)
	in.must(t, "volume", "unmount", dir)
	if err := b.stage(t, id); err != nil {
		t.Fatalf("right after the first node gave it back: %v", err)
	}
	in.fails(t, []string{"volume", "mount", v.name, dir}, "node-b")
	in.fails(t, []string{"volume", "delete", v.name, "--yes"}, "node-b")
	if err := b.unstage(t.Context(), id); err != nil {
		t.Fatal(err)
	}

	// The holder falls silent, with something that is not committed.
	in.must(t, "volume", "mount", v.name, dir)
	f := writeSynced(t, filepath.Join(dir, "file"), "second")
	defer func() { _ = f.Close() }()
	silence, wake := in.breath(t)
	// No program is started from here on: it would close its copy of the file, which
	// commits.
	if _, err := f.WriteString(", too late"); err != nil {
		t.Fatal(err)
	}
	silence()
	late := make(chan error, 1)
	go func() { late <- f.Sync() }()
	begun, waited := time.Now(), time.Duration(0)
	eventually(t, time.Minute, func() error {
		called := time.Now()
		err := b.stage(t, id)
		waited = time.Since(called)
		if err != nil && grpcstatus.Code(err) != codes.FailedPrecondition {
			t.Fatal(err)
		}
		return err
	})
	t.Cleanup(func() {
		if err := b.unstage(context.WithoutCancel(t.Context()), id); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	took := time.Since(begun)
	if took < testLease {
		t.Errorf("taken over after %v, before the lease of %v was over", took, testLease)
	}
	// It missed a renewal after half of its lease, and the call that came then had the rest
	// of the lease and its grace to wait.
	if waited < testLease/2 {
		t.Errorf("the call that took it over took %v: it did not wait for the lease to be over", waited)
	}
	t.Logf("taken over after %v, by a call that waited for %v", took.Round(time.Millisecond), waited.Round(time.Millisecond))
	other := b.publish(t, id, "pod", false)
	if err := sameContent(filepath.Join(other, "file"), "second"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(other, "file"), []byte("of the next owner"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader := b.publish(t, id, "reader", true)
	if err := os.WriteFile(filepath.Join(reader, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("written through a read-only publish: %v", err)
	}

	wake()
	select {
	case err := <-late:
		if !errors.Is(err, syscall.ESTALE) {
			t.Errorf("fsync of the node that came back: %v, want ESTALE", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("fsync does not end")
	}
	// Its kernel forgets what it had, and what was written is kept.
	eventually(t, time.Minute, func() error {
		if _, err := os.ReadFile(filepath.Join(dir, "file")); !errors.Is(err, syscall.ESTALE) {
			return fmt.Errorf("read: %w, want ESTALE", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); !errors.Is(err, syscall.ESTALE) {
			return fmt.Errorf("create: %w, want ESTALE", err)
		}
		return nil
	})
	eventually(t, time.Minute, func() error {
		kept, err := filepath.Glob(filepath.Join(in.dir, "mounter", "volumes", "*", "leftovers", "*.json"))
		if err == nil && len(kept) != 1 {
			err = fmt.Errorf("kept: %v", kept)
		}
		return err
	})
	if err := v.holds(t.Context(), "file", "of the next owner"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(other, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the first node created is there: %v", err)
	}
	if d := v.describe(t); len(d.Nodes) != 1 || d.Nodes[0] != "node-b" {
		t.Errorf("nodes = %v", d.Nodes)
	}
	_ = f.Close()
	in.must(t, "volume", "unmount", dir)
	if err := v.holds(t.Context(), "file", "of the next owner"); err != nil {
		t.Errorf("after the unmount: %v", err)
	}
}

// breath stops the node process and the mounter of an installation by its first
// func, as a machine does that hangs, and lets them go on by the second.
func (in *installation) breath(t *testing.T) (silence, wake func()) {
	t.Helper()
	s := in.mustStatus(t)
	mounter := s.component(t, "mounter").PID
	pids := append([]int{s.component(t, "node").PID, mounter}, children(mounter)...)
	tell := func(what syscall.Signal) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, what); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Errorf("signal %v to %d: %v", what, pid, err)
			}
		}
	}
	wake = func() { tell(syscall.SIGCONT) }
	t.Cleanup(wake)
	return func() {
		tell(syscall.SIGSTOP)
		eventually(t, time.Minute, func() error {
			for _, pid := range pids {
				if err := stopped(pid); err != nil {
					return err
				}
			}
			return nil
		})
	}, wake
}

// description as `holdfast volume describe -o json` tells it.
type description struct {
	ID     string
	Nodes  []string
	Leases []struct {
		Node         string
		Since, Until time.Time
	}
}

func (v *volume) describe(t *testing.T) description {
	t.Helper()
	var d description
	if err := json.Unmarshal([]byte(v.in.must(t, "volume", "describe", v.name, "-o", "json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}
