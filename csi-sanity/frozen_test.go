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
	"syscall"
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
	before := in.mustStatus(t)
	for what, freeze := range map[string]func() (thaw func()){
		"the cluster": func() func() { return in.freeze(t) },
		"the mounter": func() func() { return in.freezeMounter(t) },
	} {
		if err := inTime(t, "stats before "+what+" was frozen", time.Minute, stats); err != nil {
			t.Fatal(err)
		}
		// The mount shows a measurement again for two seconds.
		thaw := freeze()
		eventually(t, time.Minute, func() error {
			if err := inTime(t, "stats with "+what+" frozen", time.Minute, stats); grpcstatus.Code(err) != codes.DeadlineExceeded {
				return fmt.Errorf("%s is frozen, and stats say %w", what, errors.Join(err, errors.New("want DeadlineExceeded")))
			}
			return nil
		})
		eventually(t, 20*time.Second, in.nobodyHangs)
		thaw()
		eventually(t, time.Minute, func() error { return stats(t.Context()) })
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
	tell := func(s syscall.Signal) error {
		var failed error
		for _, pid := range pids {
			err := syscall.Kill(pid, s)
			if errors.Is(err, syscall.EPERM) {
				err = asRoot("kill", fmt.Sprintf("-%d", s), strconv.Itoa(pid)).Run()
			}
			failed = errors.Join(failed, err)
		}
		return failed
	}
	thaw = func() { _ = tell(syscall.SIGCONT) }
	t.Cleanup(thaw)
	if err := tell(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		eventually(t, time.Minute, func() error { return stopped(pid) })
	}
	return thaw
}
