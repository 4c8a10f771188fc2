package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// fifty are pods of one node that each write a file of their own name.
func fifty(node int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: crowd%[1]d}
spec:
  replicas: 50
  selector: {matchLabels: {app: crowd%[1]d}}
  template:
    metadata: {labels: {app: crowd%[1]d, crowd: "true"}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node%[1]d}
      terminationGracePeriodSeconds: 1
      enableServiceLinks: false
      containers:
      - name: main
        image: %[2]s
        imagePullPolicy: Never
        command: [sh, -c, "echo $HOSTNAME > /data/$HOSTNAME && exec sleep infinity"]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: crowd}}]
---
`, node, build.ShellImage)
}

// hundredPods: a hundred pods on two nodes write to one volume, S3 has the file
// of each, and their end leaves no mount.
func hundredPods(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	start := time.Now()
	withInput(t, time.Minute, claim("crowd", "ReadWriteMany")+fifty(1)+fifty(2), "apply", space, "-f", "-")
	for node := 1; node <= 2; node++ {
		within(t, 6*time.Minute, "rollout", "status", space, fmt.Sprintf("deployment/crowd%d", node), "--timeout=350s")
	}
	t.Logf("100 pods are ready after %.0f s", time.Since(start).Seconds())

	pods := strings.Fields(within(t, 20*time.Second, "get", "pods", space, "-l", "crowd", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(pods) != 100 {
		t.Fatalf("there are %d pods, want 100", len(pods))
	}
	slices.Sort(pods)
	bucket := within(t, 10*time.Second, "get", space, "persistentvolumeclaim/crowd", "-o", "jsonpath={.spec.volumeName}")
	eventually(t, 20*time.Second, func(ctx context.Context) error {
		keys, err := keysIn(ctx, bucket)
		if err == nil && !slices.Equal(slices.Sorted(slices.Values(keys)), pods) {
			return fmt.Errorf("S3 lists %d files of 100 pods: %q", len(keys), keys)
		}
		return err
	})
	if got := s3Get(t, bucket+"/"+pods[0]); got != pods[0]+"\n" {
		t.Errorf("the file of pod %s holds %q", pods[0], got)
	}

	start = time.Now()
	within(t, time.Minute, "delete", space, "deployment/crowd1", "deployment/crowd2", "--timeout=50s")
	eventually(t, 2*time.Minute, func(ctx context.Context) error {
		left, err := kubectl(ctx, "", "get", "pods", space, "-l", "crowd", "-o", "name")
		if err == nil && left != "" {
			return fmt.Errorf("pods that do not end: %s", left)
		}
		return err
	})
	for node := 1; node <= 2; node++ {
		eventually(t, time.Minute, func(ctx context.Context) error {
			left := slices.DeleteFunc(volumesOn(ctx, t, node), func(mount string) bool { return !strings.Contains(mount, bucket) })
			if len(left) > 0 {
				return fmt.Errorf("node %d still has %d mounts of the volume:\n%s", node, len(left), strings.Join(left, "\n"))
			}
			return nil
		})
	}
	t.Logf("their end took %.0f s", time.Since(start).Seconds())
}
