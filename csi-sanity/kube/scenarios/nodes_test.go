package scenarios

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

// volumesOn are the mounts of volumes that a node has.
func volumesOn(ctx context.Context, t *testing.T, node int) []string {
	t.Helper()
	line, err := cluster.EnterNode(folder, node, "cat", "/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	table, err := exec.CommandContext(ctx, line[0], line[1:]...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var mounts []string
	for mount := range strings.Lines(string(table)) {
		if strings.Contains(mount, "/kubernetes.io~csi/") || strings.Contains(mount, "/kubernetes.io/csi/csi.holdfast.io/") {
			mounts = append(mounts, strings.TrimSpace(mount))
		}
	}
	return mounts
}

func nodeOf(t *testing.T, space, pod string) string {
	t.Helper()
	return within(t, 10*time.Second, "get", space, "pod/"+pod, "-o", "jsonpath={.spec.nodeName}")
}

// TestNodeAway is a node's power failure, which is waited for most of two minutes, and
// beside it what needs no node.
func TestNodeAway(t *testing.T) {
	settle(t)
	t.Run("Stopped", func(t *testing.T) {
		t.Parallel()
		nodeStopped(t)
	})
	t.Run("APIServer", func(t *testing.T) {
		t.Parallel()
		apiServer(t)
	})
}

// nodeStopped: a node loses its power, its pod moves, what was fsynced is
// there, and the node that comes back overwrites nothing. Another pod of such a node
// answers nobody until it is back, and the inline volume of one goes with it.
func nodeStopped(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	lost := shape{name: "lost", node: 2, mounts: dataMount, volumes: inlineVolume}
	withInput(t, time.Minute, lost.String()+webServer(1)+webServer(2)+stateful(idle), "apply", space, "-f", "-")
	for _, workload := range []string{"statefulset/db", "deployment/web1", "deployment/web2"} {
		within(t, 2*time.Minute, "rollout", "status", space, workload, "--timeout=110s")
	}
	within(t, time.Minute, "wait", space, "pod/lost", "--for=condition=Ready", "--timeout=50s")
	scratch := scratchOf(t, space, "lost")
	reaches(t, 20*time.Second, space, 1, 2)
	if on := nodeOf(t, space, "db-0"); on != "node2" {
		t.Fatalf("the pod is on %s, want node2", on)
	}
	within(t, 30*time.Second, "exec", space, "db-0", "--", "sh", "-c",
		"echo committed > /data/record && sync /data/record && echo never told >> /data/unsynced")

	ask(t, "stop", 2)
	powered := false
	t.Cleanup(func() {
		if !powered {
			_ = cluster.Ask(context.WithoutCancel(t.Context()), 2, "start")
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		_, _ = kubectl(ctx, "", "taint", "node", "node2", "node.kubernetes.io/out-of-service-", "--overwrite")
	})
	within(t, 90*time.Second, "wait", "node/node2", "--for=condition=Ready=Unknown", "--timeout=80s")
	reaches(t, 20*time.Second, space, 1, 1)
	if err := fetch(t.Context(), space, 1, 2); err == nil {
		t.Error("a pod of a node without power answers")
	}
	within(t, 10*time.Second, "taint", "node", "node2", "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute")
	start := time.Now()
	eventually(t, 4*time.Minute, func(ctx context.Context) error {
		state, err := kubectl(ctx, "", "get", space, "pod/db-0", "-o", "jsonpath={.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}")
		if err == nil && state != "node1 True" {
			return fmt.Errorf("pod, node and readiness: %s", state)
		}
		return err
	})
	t.Logf("from the taint to the pod on node 1: %.0f s", time.Since(start).Seconds())
	if got := within(t, 30*time.Second, "exec", space, "db-0", "--", "cat", "/data/record"); got != "committed" {
		t.Errorf("after the move the record holds %q, want %q", got, "committed")
	}
	within(t, 30*time.Second, "exec", space, "db-0", "--", "sh", "-c", "echo changed on node 1 > /data/record && sync /data/record")

	powered = true
	ask(t, "start", 2)
	within(t, 10*time.Second, "taint", "node", "node2", "node.kubernetes.io/out-of-service-")
	for _, daemon := range []string{"keeper", "mounter", "node"} {
		eventually(t, 2*time.Minute, func(ctx context.Context) error {
			ready, err := kubectl(ctx, "", "get", system, "daemonset/holdfast-"+daemon, "-o", "jsonpath={.status.numberReady}")
			if err == nil && ready != "2" {
				return fmt.Errorf("%s is ready on %s nodes", daemon, ready)
			}
			return err
		})
	}
	if got := within(t, 30*time.Second, "exec", space, "db-0", "--", "cat", "/data/record"); got != "changed on node 1" {
		t.Errorf("after the node's return the record holds %q, want %q", got, "changed on node 1")
	}
	within(t, time.Minute, "rollout", "status", space, "deployment/web2", "--timeout=50s")
	reaches(t, time.Minute, space, 1, 2)
	bucketGoes(t, 2*time.Minute, scratch)
}

// TestDrainAndReboot: a drained and rebooted node keeps no mount and no pod.
func TestDrainAndReboot(t *testing.T) {
	settle(t)
	space := "--namespace=" + newNamespace(t)
	withInput(t, time.Minute, stateful(idle), "apply", space, "-f", "-")
	within(t, 2*time.Minute, "rollout", "status", space, "statefulset/db", "--timeout=110s")
	within(t, 30*time.Second, "exec", space, "db-0", "--", "sh", "-c", "echo kept > /data/record")
	before := nodeOf(t, space, "db-0")

	within(t, 3*time.Minute, "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=170s")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		_, _ = kubectl(ctx, "", "uncordon", "node2")
	})
	within(t, 2*time.Minute, "rollout", "status", space, "statefulset/db", "--timeout=110s")
	if on := nodeOf(t, space, "db-0"); before != "node2" || on != "node1" {
		t.Fatalf("the pod went from %s to %s, want from node2 to node1", before, on)
	}
	if got := within(t, 30*time.Second, "exec", space, "db-0", "--", "cat", "/data/record"); got != "kept" {
		t.Errorf("after the drain the record holds %q, want %q", got, "kept")
	}
	eventually(t, time.Minute, func(ctx context.Context) error {
		if left := volumesOn(ctx, t, 2); len(left) > 0 {
			return fmt.Errorf("the drained node still has %d mounts:\n%s", len(left), strings.Join(left, "\n"))
		}
		return nil
	})
	ask(t, "stop", 2)
	ask(t, "start", 2)
	within(t, time.Minute, "uncordon", "node2")
	eventually(t, 2*time.Minute, func(ctx context.Context) error {
		stuck, err := kubectl(ctx, "", "get", "pods", "--all-namespaces", "--field-selector=spec.nodeName=node2,status.phase!=Running,status.phase!=Succeeded", "-o", "name")
		if err == nil && stuck != "" {
			return fmt.Errorf("pods that do not run on node 2: %s", stuck)
		}
		return err
	})
	if left := volumesOn(t.Context(), t, 2); len(left) > 0 {
		t.Errorf("the rebooted node has mounts:\n%s", strings.Join(left, "\n"))
	}
}
