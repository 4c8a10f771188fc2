package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/cluster"
)

// Tests run in the order of the files' names and of each file: TestInstall here
// installs Holdfast, uninstall_test.go removes it.

const system = "--namespace=holdfast-system"

// claim is a PersistentVolumeClaim.
func claim(name, mode string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec: {storageClassName: holdfast, accessModes: [%s], resources: {requests: {storage: 1Gi}}}
---
`, name, mode)
}

// pod has a claim at /data, on that node or, with 0, on any.
func pod(name, claim string, node int, image, command string) string {
	where := "{}"
	if node != 0 {
		where = fmt.Sprintf("{kubernetes.io/hostname: node%d}", node)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeSelector: %s
  terminationGracePeriodSeconds: 5
  restartPolicy: Never
  containers:
  - {name: main, image: %s, imagePullPolicy: Never, command: %s, volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]
---
`, name, where, image, command, claim)
}

const idle = `[sleep, infinity]`

// TestInstall is the newcomer's guide: an empty cluster, one command, a claim.
func TestInstall(t *testing.T) {
	section(t, "Install")
	section(t, "Use")
}

// TestClaimToRunningPod: a claim is bound and its pod runs within 10 seconds.
func TestClaimToRunningPod(t *testing.T) {
	const limit = 10 * time.Second
	space := "--namespace=" + newNamespace(t)
	start := time.Now()
	withInput(t, limit, claim("data", "ReadWriteOnce")+pod("app", "data", 0, build.ShellImage, idle), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/app", "--for=condition=Ready", "--timeout=50s")
	took := time.Since(start)
	t.Logf("from kubectl apply to a ready pod: %.1f s", took.Seconds())
	if took > limit {
		t.Errorf("it took %v, allowed are %v", took, limit)
	}
}

// TestSharedVolume: two pods on two nodes share a volume, and S3 shows its files.
func TestSharedVolume(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	withInput(t, time.Minute, claim("shared", "ReadWriteMany")+
		pod("one", "shared", 1, build.ShellImage, idle)+pod("two", "shared", 2, build.ShellImage, idle), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/one", "pod/two", "--for=condition=Ready", "--timeout=50s")
	for from, to := range map[string]string{"one": "two", "two": "one"} {
		within(t, 20*time.Second, "exec", space, from, "--", "sh", "-c", "echo hello from "+from+" > /data/"+from)
		eventually(t, 10*time.Second, func(ctx context.Context) error {
			got, err := kubectl(ctx, "", "exec", space, to, "--", "cat", "/data/"+from)
			if want := "hello from " + from; err == nil && got != want {
				return fmt.Errorf("%s reads %q, want %q", to, got, want)
			}
			return err
		})
	}

	volume := within(t, 10*time.Second, "get", space, "persistentvolumeclaim/shared", "-o", "jsonpath={.spec.volumeName}")
	for _, name := range []string{"one", "two"} {
		if got, want := s3Get(t, volume+"/"+name), "hello from "+name+"\n"; got != want {
			t.Errorf("S3 has %q in %s, want %q", got, name, want)
		}
	}
}

// s3Get reads an object by a signed request, with the administrator's keys.
func s3Get(t *testing.T, key string) string {
	t.Helper()
	var secret struct{ Data map[string][]byte }
	text := within(t, 10*time.Second, "get", system, "secret/holdfast-s3-admin", "-o", "json")
	if err := json.Unmarshal([]byte(text), &secret); err != nil {
		t.Fatal(err)
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(secret.Data["keys.json"], &keys); err != nil {
		t.Fatalf("keys.json of Secret holdfast-s3-admin: %v", err)
	}
	address := within(t, 10*time.Second, "get", system, "service/holdfast-s3", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The keys go by a file descriptor: arguments are seen by every user.
	cmd := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--config", "-", "--aws-sigv4", "aws:amz:us-east-1:s3", "http://"+address+"/"+key)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("user = %q\n", keys.Access+":"+keys.Secret))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("GET %s: %v: %s", key, err, &stderr)
	}
	return string(out)
}

// startLoad runs the application that notices everything on both nodes, on one
// shared volume, in a folder each.
func startLoad(t *testing.T, space string) {
	t.Helper()
	manifest := claim("load", "ReadWriteMany")
	for node := 1; node <= 2; node++ {
		manifest += pod(fmt.Sprintf("load%d", node), "load", node, build.LoadImage, fmt.Sprintf("[/load, -dir=/data/node%d]", node))
	}
	withInput(t, time.Minute, manifest, "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/load1", "pod/load2", "--for=condition=Ready", "--timeout=50s")
	checkLoad(t, space)
}

// checkLoad fails when a load has ended, which it does at its first error, and
// waits until each has gone on.
func checkLoad(t *testing.T, space string) {
	t.Helper()
	for _, name := range []string{"load1", "load2"} {
		before := -1
		eventually(t, 90*time.Second, func(ctx context.Context) error {
			phase, err := kubectl(ctx, "", "get", space, "pod/"+name, "-o", "jsonpath={.status.phase}")
			if err == nil && phase != "Running" {
				log, _ := kubectl(ctx, "", "logs", space, name, "--tail=3")
				t.Fatalf("%s has seen an error (its pod is %s):\n%s", name, phase, log)
			}
			last, err := kubectl(ctx, "", "logs", space, name, "--tail=1")
			if err != nil {
				return err
			}
			var progress struct{ Rounds int }
			if err := json.Unmarshal([]byte(last), &progress); err != nil {
				return fmt.Errorf("%s says %q: %w", name, last, err)
			}
			if before < 0 {
				before = progress.Rounds
			}
			if progress.Rounds <= before {
				return fmt.Errorf("%s stands still after %d rounds", name, progress.Rounds)
			}
			return nil
		})
	}
}

// longest is the longest wait of an operation that both loads have told.
func longest(t *testing.T, space string) float64 {
	t.Helper()
	var most float64
	for _, name := range []string{"load1", "load2"} {
		for line := range strings.Lines(within(t, 20*time.Second, "logs", space, name)) {
			var progress struct {
				LongestSeconds float64 `json:"longestSeconds"`
			}
			if json.Unmarshal([]byte(line), &progress) == nil {
				most = max(most, progress.LongestSeconds)
			}
		}
	}
	return most
}

// TestPodsOfTheNodeReplaced: node plugin and mounter pods are deleted under load,
// and no application sees an error.
func TestPodsOfTheNodeReplaced(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	startLoad(t, space)
	for _, component := range []string{"node", "mounter", "node", "mounter"} {
		within(t, 2*time.Minute, "delete", system, "pod", "-l", "app.kubernetes.io/component="+component, "--timeout=110s")
		within(t, 2*time.Minute, "rollout", "status", system, "daemonset/holdfast-"+component, "--timeout=110s")
		checkLoad(t, space)
	}
	t.Logf("longest wait of an operation: %.1f s", longest(t, space))
}

// TestUpgrade: a new image under load, and no application sees an error.
func TestUpgrade(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	startLoad(t, space)
	shell(t, 5*time.Minute, "helm upgrade holdfast deploy/helm/holdfast --namespace holdfast-system --reuse-values --values "+withValues(t, build.Versions[1]))
	for _, workload := range []string{"deployment/holdfast-controller", "daemonset/holdfast-mounter", "daemonset/holdfast-node"} {
		within(t, 4*time.Minute, "rollout", "status", system, workload, "--timeout=230s")
	}
	image := within(t, 10*time.Second, "get", system, "pod", "-l", "app.kubernetes.io/component=mounter", "-o", "jsonpath={.items[*].spec.containers[0].image}")
	if strings.Count(image, build.Versions[1]) != 2 {
		t.Errorf("the mounters run %q, want version %s on both nodes", image, build.Versions[1])
	}
	checkLoad(t, space)
	t.Logf("longest wait of an operation: %.1f s", longest(t, space))
}

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

// stateful is a StatefulSet of one pod, with a volume of one node.
func stateful(command string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 5
      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node2]}]}}]}}
      containers:
      - {name: main, image: %s, imagePullPolicy: Never, command: %s, volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: holdfast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, build.ShellImage, command)
}

func nodeOf(t *testing.T, space, pod string) string {
	t.Helper()
	return within(t, 10*time.Second, "get", space, "pod/"+pod, "-o", "jsonpath={.spec.nodeName}")
}

// TestNodeStopped: a node loses its power, its pod moves, what was fsynced is
// there, and the node that comes back overwrites nothing.
func TestNodeStopped(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	withInput(t, time.Minute, stateful(idle), "apply", space, "-f", "-")
	within(t, 2*time.Minute, "rollout", "status", space, "statefulset/db", "--timeout=110s")
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
}

// TestDrainAndReboot: a drained and rebooted node keeps no mount and no pod.
func TestDrainAndReboot(t *testing.T) {
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
