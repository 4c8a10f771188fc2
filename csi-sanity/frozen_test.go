package csisanity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
)

// nodeService speaks CSI to the installation's node service, as the kubelet does.
func (in *installation) nodeService(t *testing.T) csi.NodeClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+in.mustStatus(t).Endpoints.Node, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return csi.NewNodeClient(conn)
}

// measuring are the node service's children that ask one of our mounts.
func (in *installation) measuring() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		args, _ := os.ReadFile(path)
		if bytes.Contains(args, []byte("\x00statfs\x00")) && bytes.Contains(args, []byte(filepath.Dir(in.dir))) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// nobodyHangs returns nil when no child measures and no thread of the installation
// is in an uninterruptible wait. Such waits for a disk are short.
func (in *installation) nobodyHangs() error {
	if pids := in.measuring(); len(pids) > 0 {
		return fmt.Errorf("processes %v still ask a mount", pids)
	}
	for _, pid := range in.processes() {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			stat, err := os.ReadFile(thread)
			if err != nil {
				continue // it has just ended
			}
			// "pid (name) state …", proc_pid_stat(5); a name may hold anything.
			if rest := stat[bytes.LastIndexByte(stat, ')'):]; bytes.HasPrefix(rest, []byte(") D")) {
				return fmt.Errorf("%s: %s", thread, stat)
			}
		}
	}
	return nil
}

// inTime makes a call that must end by itself, long before the caller's patience.
func inTime(t *testing.T, what string, within time.Duration, call func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	err := call(ctx)
	if took := time.Since(start); took > within {
		t.Errorf("%s took %v, want at most %v", what, took, within)
	}
	if err != nil {
		t.Logf("%s: %v", what, err)
	}
	return err
}

// The kubelet measures its volumes in a few workers: one that hangs there stops all
// of them. So a mount that does not answer is an error after some seconds, and
// leaves nobody behind who waits in the kernel; when it answers again, so do we.
func TestMeasuringAFrozenMount(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	node := in.nodeService(t)
	stats := func(ctx context.Context) error {
		resp, err := node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.Bucket, VolumePath: dir})
		if err == nil && resp.GetUsage()[0].GetTotal() != 10<<30 {
			return fmt.Errorf("the volume has %d bytes", resp.GetUsage()[0].GetTotal())
		}
		return err
	}
	// health says STATUS Reason of what is not well; it answers whatever is frozen.
	health := func(ctx context.Context) (string, error) {
		resp, err := node.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: v.Bucket, VolumePublishPath: dir})
		var all []string
		for _, c := range resp.GetVolumeHealth().GetHealthStatuses() {
			all = append(all, c.GetStatus().String()+" "+c.GetReason())
			t.Logf("health: %s", c.GetMessage())
		}
		return strings.Join(all, ", "), err
	}
	before := in.mustStatus(t)
	for what, c := range map[string]struct {
		freeze func() (thaw func())
		health string
	}{
		"the cluster": {func() func() { return in.freeze(t) }, "INACCESSIBLE ClusterAway"},
		"the mounter": {func() func() { return in.freezeMounter(t) }, "INACCESSIBLE MounterSilent"},
	} {
		if got, err := health(t.Context()); err != nil || got != "" {
			t.Errorf("health before %s was frozen: %q, %v", what, got, err)
		}
		if err := inTime(t, "stats before "+what+" was frozen", time.Minute, stats); err != nil {
			t.Fatal(err)
		}
		// The mount shows a measurement again for two seconds.
		thaw := c.freeze()
		eventually(t, time.Minute, func() error {
			if err := inTime(t, "stats with "+what+" frozen", time.Minute, stats); grpcstatus.Code(err) != codes.DeadlineExceeded {
				return errors.Join(err, fmt.Errorf("%s is frozen, and stats are no DeadlineExceeded", what))
			}
			return nil
		})
		eventually(t, 20*time.Second, in.nobodyHangs)
		eventually(t, time.Minute, func() error {
			var got string
			err := inTime(t, "health with "+what+" frozen", 20*time.Second, func(ctx context.Context) (err error) {
				got, err = health(ctx)
				return err
			})
			if err != nil || got != c.health {
				return errors.Join(err, fmt.Errorf("%s is frozen, and health is %q, want %q", what, got, c.health))
			}
			return nil
		})
		// The kubelet may stage it again at any time. That touches nothing.
		staged := inTime(t, "stage with "+what+" frozen", 30*time.Second, func(ctx context.Context) error {
			_, err := node.NodeStageVolume(ctx, v.stageRequest(t))
			return err
		})
		if code := grpcstatus.Code(staged); code != codes.OK && code != codes.Aborted {
			t.Errorf("stage with %s frozen: %v, want OK or Aborted", what, staged)
		}
		if mounts, err := mountsBelow(filepath.Dir(in.dir)); err != nil || len(mounts) != 2 {
			t.Errorf("mounted are %v (%v), want the staging folder and the target", mounts, err)
		}
		thaw()
		eventually(t, time.Minute, func() error { return stats(t.Context()) })
		eventually(t, time.Minute, func() error {
			if got, err := health(t.Context()); err != nil || got != "" {
				return errors.Join(err, fmt.Errorf("health after %s was frozen: %q", what, got))
			}
			return nil
		})
		if err := os.WriteFile(filepath.Join(dir, "after"), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	after := in.mustStatus(t)
	for _, name := range []string{"keeper", "mounter", "node"} {
		if was, is := before.component(t, name), after.component(t, name); was.process != is.process {
			t.Errorf("%s was %+v and is %+v", name, was, is)
		}
	}
}

// freezeMounter stops the mounter's processes where they are.
func (in *installation) freezeMounter(t *testing.T) (thaw func()) {
	t.Helper()
	var pids []int
	for _, pid := range in.processes() {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := strings.Split(string(args), "\x00"); len(words) > 1 && (words[1] == "serve" || words[1] == "worker") {
			pids = append(pids, pid)
		}
	}
	if len(pids) != 2 {
		t.Fatalf("the mounter is %v, want a parent and a worker", pids)
	}
	return freeze(t, pids)
}

// stageRequest is the one by which the command line has staged the volume.
func (v *volume) stageRequest(t *testing.T) *csi.NodeStageVolumeRequest {
	t.Helper()
	mounts, err := mountsBelow(filepath.Join(v.in.dir, "staging"))
	if err != nil || len(mounts) != 1 {
		t.Fatalf("staged at %v (%v)", mounts, err)
	}
	return &csi.NodeStageVolumeRequest{
		VolumeId: v.Bucket, StagingTargetPath: mounts[0],
		VolumeCapability: &csi.VolumeCapability{
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER},
		},
	}
}
