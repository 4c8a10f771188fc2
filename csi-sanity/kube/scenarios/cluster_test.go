package scenarios

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// webServer is a Deployment of one pod on that node, with a Service of its name,
// that tells its node's name.
func webServer(node int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web%[1]d}
spec:
  selector: {matchLabels: {app: web%[1]d}}
  template:
    metadata: {labels: {app: web%[1]d}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node%[1]d}
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: %[2]s
        imagePullPolicy: Never
        command: [sh, -c, "mkdir -p /www && echo node%[1]d > /www/index.html && exec httpd -f -p 8080 -h /www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web%[1]d}
spec: {selector: {app: web%[1]d}, ports: [{port: 80, targetPort: 8080}]}
---
`, node, build.ShellImage)
}

// fetch asks the web server of one node from the pod of the other's.
func fetch(ctx context.Context, space string, from, to int) error {
	// A kubelet that goes away leaves an exec waiting for ever.
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	got, err := kubectl(ctx, "", "exec", space, fmt.Sprintf("deployment/web%d", from), "--",
		"timeout", "3", "wget", "-q", "-O", "-", fmt.Sprintf("http://web%d", to))
	if want := fmt.Sprintf("node%d", to); err == nil && got != want {
		return fmt.Errorf("web%d answers web%d with %q, want %q", to, from, got, want)
	}
	return err
}

// reaches waits until it is answered.
func reaches(t *testing.T, limit time.Duration, space string, from, to int) {
	t.Helper()
	eventually(t, limit, func(ctx context.Context) error { return fetch(ctx, space, from, to) })
}

// TestCluster proves the ground that the other tests stand on: names and
// Services from pods of either node to pods of either, the API server from a
// pod, a kubelet that starts again. A node's end and return: TestNodeAway.
func TestCluster(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	withInput(t, time.Minute, webServer(1)+webServer(2), "apply", space, "-f", "-")
	for node := 1; node <= 2; node++ {
		within(t, time.Minute, "rollout", "status", space, fmt.Sprintf("deployment/web%d", node))
	}
	for from := 1; from <= 2; from++ {
		for to := 1; to <= 2; to++ {
			reaches(t, 20*time.Second, space, from, to)
		}
		within(t, 20*time.Second, "exec", space, fmt.Sprintf("deployment/web%d", from), "--",
			"sh", "-c", "nc -w 5 kubernetes.default.svc 443 </dev/null")
	}
	ask(t, "restart-kubelet", 2)
	within(t, time.Minute, "wait", "node/node2", "--for=condition=Ready", "--timeout=50s")
	reaches(t, 30*time.Second, space, 2, 1)
}
