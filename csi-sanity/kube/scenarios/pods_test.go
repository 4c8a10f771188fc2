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

// shape is a pod that asks more of its volumes than a folder to write to.
type shape struct {
	name string
	node int // 0 for any
	// spec and main are more of the pod's specification and of its container, each a
	// line of YAML; mounts and volumes are lists.
	spec, main, mounts, volumes string
}

// started is the label of the pods that podShapes waits for.
const started = "holdfast.test/started"

func (s shape) String() string {
	where := "{}"
	if s.node != 0 {
		where = fmt.Sprintf("{kubernetes.io/hostname: node%d}", s.node)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {%s: "true"}}
spec:
  nodeSelector: %s
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  %s
  containers:
  - name: main
    image: %s
    imagePullPolicy: Never
    command: %s
    %s
    volumeMounts: %s
  volumes: %s
---
`, s.name, started, where, s.spec, build.ShellImage, idle, s.main, s.mounts, s.volumes)
}

const (
	dataMount    = "[{name: data, mountPath: /data}]"
	inlineVolume = "[{name: data, csi: {driver: csi.holdfast.io, volumeAttributes: {size: 64Mi}}}]"
)

func claimed(name string) string {
	return fmt.Sprintf("[{name: data, persistentVolumeClaim: {claimName: %s}}]", name)
}

// simple has a claim at /data.
func simple(name string, node int, claim string) shape {
	return shape{name: name, node: node, mounts: dataMount, volumes: claimed(claim)}
}

// noexecClass is the chart's class with a mount option; classes have no namespace.
const noexecClass = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: e2e-noexec}
provisioner: csi.holdfast.io
mountOptions: [noexec]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: noexec}
spec: {storageClassName: e2e-noexec, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
`

// many is how many volumes one pod has.
const many = 20

func manyClaim(i int) string { return fmt.Sprintf("many-%02d", i) }

// manyVolumes is a pod with all of them, beneath /many.
func manyVolumes() shape {
	var mounts, volumes []string
	for i := range many {
		mounts = append(mounts, fmt.Sprintf("{name: %[1]s, mountPath: /many/%[1]s}", manyClaim(i)))
		volumes = append(volumes, fmt.Sprintf("{name: %[1]s, persistentVolumeClaim: {claimName: %[1]s}}", manyClaim(i)))
	}
	return shape{name: "many", mounts: "[" + strings.Join(mounts, ", ") + "]", volumes: "[" + strings.Join(volumes, ", ") + "]"}
}

// shapes are the pods that start at once.
func shapes() string {
	all := []shape{
		{
			name:   "group",
			spec:   "securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, seccompProfile: {type: RuntimeDefault}}",
			main:   "securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}",
			mounts: dataMount, volumes: claimed("group"),
		},
		{
			name:   "paths",
			main:   "env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
			mounts: "[{name: data, mountPath: /whole}, {name: data, mountPath: /one, subPath: logs}, {name: data, mountPath: /two, subPathExpr: $(NAME)/deep}]", volumes: claimed("paths"),
		},
		manyVolumes(),
		{
			name: "inline", mounts: dataMount, volumes: inlineVolume,
		},
		simple("noexec", 0, "noexec"),
		simple("writer", 1, "shared"),
		{
			name: "viewer", node: 2, mounts: dataMount,
			volumes: "[{name: data, persistentVolumeClaim: {claimName: shared, readOnly: true}}]",
		},
		simple("only", 1, "alone"),
		simple("holder", 1, "one-node"),
	}
	var manifest strings.Builder
	manifest.WriteString(noexecClass)
	for name, mode := range map[string]string{
		"group": "ReadWriteOnce", "paths": "ReadWriteOnce", "shared": "ReadWriteMany", "alone": "ReadWriteOncePod", "one-node": "ReadWriteOnce",
	} {
		manifest.WriteString(claim(name, mode))
	}
	for i := range many {
		modes := []string{"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"}
		manifest.WriteString(claim(manyClaim(i), modes[i%len(modes)]))
	}
	for _, s := range all {
		manifest.WriteString(s.String())
	}
	return manifest.String()
}

// podShapes is what pods ask of volumes: owners and groups, parts of a volume,
// many of them, volumes of their own, reading alone, one pod or one node alone.
func podShapes(t *testing.T) {
	space := "--namespace=" + newNamespace(t)
	t.Cleanup(func() { remove(t, "storageclass/e2e-noexec") })
	start := time.Now()
	withInput(t, time.Minute, shapes(), "apply", space, "-f", "-")
	within(t, 3*time.Minute, "wait", space, "pod", "-l", started, "--for=condition=Ready", "--timeout=170s")
	t.Logf("all pods ready after %.0f s", time.Since(start).Seconds())

	for _, check := range []struct {
		name string
		run  func(t *testing.T, space string)
	}{
		{"NonRootGroupReadOnlyRoot", checkGroup},
		{"SubPaths", checkPaths},
		{"ManyVolumes", checkMany},
		{"Inline", checkInline},
		{"ReadOnlyInThePod", checkViewer}, // ends with checkStatic, which removes its pod
		{"MountOptionsOfAClass", func(t *testing.T, space string) { checkNoexec(t, space, "noexec") }},
		{"ReadWriteOncePod", checkOncePod},
		{"ReadWriteOnceElsewhere", checkOtherNode},
	} {
		t.Run(check.name, func(t *testing.T) {
			t.Parallel()
			check.run(t, space)
		})
	}
}

// inPod runs a line of shell, which must succeed.
func inPod(t *testing.T, space, pod, line string) string {
	t.Helper()
	return within(t, 30*time.Second, "exec", space, pod, "--", "sh", "-c", line)
}

// refusedIn runs a line of shell that must fail with that message.
func refusedIn(t *testing.T, space, pod, line, message string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := kubectl(ctx, "", "exec", space, pod, "--", "sh", "-c", line)
	if err == nil {
		t.Errorf("%s in pod %s succeeds (%s), want %q", line, pod, out, message)
	} else if !strings.Contains(err.Error(), message) {
		t.Errorf("%s in pod %s: %v, want %q", line, pod, err, message)
	}
}

// remove is for what does not go with a test's namespace, or has to go before.
func remove(t *testing.T, objects ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if _, err := kubectl(ctx, "", append([]string{"delete", "--ignore-not-found", "--timeout=50s"}, objects...)...); err != nil {
		t.Errorf("remove what the test has made: %v", err)
	}
}

// told waits for an event about an object of the namespace that has all these words.
func told(t *testing.T, space, object string, words ...string) {
	t.Helper()
	eventually(t, time.Minute, func(ctx context.Context) error {
		events, err := kubectl(ctx, "", "get", "events", space, "--field-selector=involvedObject.name="+object,
			"-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
		if err != nil {
			return err
		}
		for event := range strings.Lines(events) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(event, word) }) {
				return nil
			}
		}
		return fmt.Errorf("no event about %s has %q:\n%s", object, words, events)
	})
}

func checkGroup(t *testing.T, space string) {
	inPod(t, space, "group", "echo text > /data/file && mkdir /data/folder && echo text > /data/folder/file")
	if got, want := inPod(t, space, "group", "id -u; stat -c %g /data /data/file /data/folder/file"), "1000\n2000\n2000\n2000"; got != want {
		t.Errorf("user, and groups of the volume and of two new files: %q, want %q", got, want)
	}
	refusedIn(t, space, "group", "echo text > /file", "Read-only file system")
}

func checkPaths(t *testing.T, space string) {
	if got, want := inPod(t, space, "paths", "echo one > /one/file && echo two > /two/file && cat /whole/logs/file /whole/paths/deep/file"), "one\ntwo"; got != want {
		t.Errorf("the whole volume shows %q in its parts, want %q", got, want)
	}
}

func checkMany(t *testing.T, space string) {
	inPod(t, space, "many", "cd /many && for v in *; do echo $v > $v/file; done")
	var want []string
	for i := range many {
		want = append(want, fmt.Sprintf("%[1]s/file:%[1]s", manyClaim(i)))
	}
	if got := inPod(t, space, "many", "cd /many && grep . */*"); got != strings.Join(want, "\n") {
		t.Errorf("%d volumes of a pod hold\n%s\nwant\n%s", many, got, strings.Join(want, "\n"))
	}
}

// checkInline: the pod's own volume is a bucket, which goes with the pod.
func checkInline(t *testing.T, space string) {
	bucket := scratchOf(t, space, "inline")
	within(t, time.Minute, "delete", space, "pod/inline", "--timeout=50s")
	bucketGoes(t, time.Minute, bucket)
}

// scratchOf writes to the inline volume of a pod, at /data, and names its bucket.
func scratchOf(t *testing.T, space, pod string) string {
	t.Helper()
	key := "of-" + pod + "-alone"
	inPod(t, space, pod, "echo scratch > /data/"+key+" && sync /data/"+key)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	bucket, err := inlineBucket(ctx, key)
	if err != nil || bucket == "" {
		t.Fatalf("the bucket of the inline volume of pod %s: %q, %v", pod, bucket, err)
	}
	if got, want := s3Get(t, bucket+"/"+key), "scratch\n"; got != want {
		t.Errorf("S3 has %q, want %q", got, want)
	}
	return bucket
}

// bucketGoes waits for the end of a bucket whose pod is gone.
func bucketGoes(t *testing.T, limit time.Duration, bucket string) {
	t.Helper()
	eventually(t, limit, func(ctx context.Context) error {
		all, err := buckets(ctx)
		if err == nil && slices.Contains(all, bucket) {
			return fmt.Errorf("the pod is gone and its bucket %s is there", bucket)
		}
		return err
	})
}

// inlineBucket finds the bucket of an inline volume that has that key. The kubelet begins
// their ids with csi-; those of other tests come and go.
func inlineBucket(ctx context.Context, key string) (string, error) {
	all, err := buckets(ctx)
	if err != nil {
		return "", err
	}
	for _, bucket := range all {
		if !strings.HasPrefix(bucket, "csi-") {
			continue
		}
		if keys, err := keysIn(ctx, bucket); err == nil && slices.Contains(keys, key) {
			return bucket, nil
		}
	}
	return "", nil
}

func checkViewer(t *testing.T, space string) {
	inPod(t, space, "writer", "echo published > /data/file")
	eventually(t, 10*time.Second, func(ctx context.Context) error {
		got, err := kubectl(ctx, "", "exec", space, "viewer", "--", "cat", "/data/file")
		if err == nil && got != "published" {
			return fmt.Errorf("it reads %q", got)
		}
		return err
	})
	refusedIn(t, space, "viewer", "echo mine > /data/mine", "Read-only file system")
	t.Run("StaticReadOnlyMany", func(t *testing.T) { checkStatic(t, space) })
}

// checkStatic: a PersistentVolume made by hand gives a volume that is there to
// another claim, to read, with a mount option of its own.
func checkStatic(t *testing.T, space string) {
	name := within(t, 10*time.Second, "get", space, "persistentvolumeclaim/shared", "-o", "jsonpath={.spec.volumeName}")
	handle := within(t, 10*time.Second, "get", "persistentvolume", name, "-o", "jsonpath={.spec.csi.volumeHandle}")
	inPod(t, space, "writer", "printf '#!/bin/sh\necho ran\n' > /data/program && chmod +x /data/program")
	// A kubelet takes two PersistentVolumes of one handle for one, so on node 2 the
	// other one's pod goes first.
	within(t, time.Minute, "delete", space, "pod/viewer", "--timeout=50s")
	t.Cleanup(func() {
		remove(t, space, "pod/static", "persistentvolumeclaim/static")
		remove(t, "persistentvolume/e2e-static")
	})
	withInput(t, time.Minute, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: e2e-static}
spec:
  storageClassName: ""
  capacity: {storage: 1Gi}
  accessModes: [ReadOnlyMany]
  persistentVolumeReclaimPolicy: Retain
  mountOptions: [noexec]
  csi: {driver: csi.holdfast.io, volumeHandle: %s}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: static}
spec: {storageClassName: "", volumeName: e2e-static, accessModes: [ReadOnlyMany], resources: {requests: {storage: 1Gi}}}
---
`, handle)+simple("static", 2, "static").String(), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "pod/static", "--for=condition=Ready", "--timeout=50s")
	if got := inPod(t, space, "static", "tail -n 1 /data/program"); got != "echo ran" {
		t.Errorf("the end of the file is %q, want %q", got, "echo ran")
	}
	refusedIn(t, space, "static", "echo mine > /data/mine", "Read-only file system")
	refusedIn(t, space, "static", "/data/program", "Permission denied")
	if got := inPod(t, space, "writer", "/data/program"); got != "ran" {
		t.Errorf("where noexec was not asked for the program says %q, want %q", got, "ran")
	}
}

func checkNoexec(t *testing.T, space, pod string) {
	refusedIn(t, space, pod, "cp /bin/busybox /data/busybox && chmod +x /data/busybox && /data/busybox true", "Permission denied")
}

// checkOncePod: while one pod has the volume another one waits, and the scheduler says why.
func checkOncePod(t *testing.T, space string) {
	inPod(t, space, "only", "echo first > /data/file")
	withInput(t, time.Minute, simple("next", 0, "alone").String(), "apply", space, "-f", "-")
	told(t, space, "next", "FailedScheduling", "ReadWriteOncePod")
	within(t, time.Minute, "delete", space, "pod/only", "--timeout=50s")
	within(t, 2*time.Minute, "wait", space, "pod/next", "--for=condition=Ready", "--timeout=110s")
	if got := inPod(t, space, "next", "cat /data/file"); got != "first" {
		t.Errorf("the next pod reads %q, want %q", got, "first")
	}
}

// checkOtherNode: a pod on another node is told who has the volume, and starts when
// that one is gone.
func checkOtherNode(t *testing.T, space string) {
	inPod(t, space, "holder", "echo first > /data/file")
	withInput(t, time.Minute, simple("waiter", 2, "one-node").String(), "apply", space, "-f", "-")
	told(t, space, "waiter", "FailedMount", "in use on node node1")
	within(t, time.Minute, "delete", space, "pod/holder", "--timeout=50s")
	start := time.Now()
	within(t, 3*time.Minute, "wait", space, "pod/waiter", "--for=condition=Ready", "--timeout=170s")
	t.Logf("from the end of the pod on node 1 to the one on node 2: %.0f s", time.Since(start).Seconds())
	if got := inPod(t, space, "waiter", "cat /data/file"); got != "first" {
		t.Errorf("the pod on node 2 reads %q, want %q", got, "first")
	}
}
