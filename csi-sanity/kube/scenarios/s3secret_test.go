package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// asking is a claim that wants a Secret.
func asking(name string) string {
	return strings.Replace(claim(name, "ReadWriteMany"), "metadata: {name: "+name+"}", "metadata: {name: "+name+`, annotations: {holdfast.io/s3-secret: "true"}}`, 1)
}

// allowSecrets sets the namespaces whose claims may have Secrets. It is for clean-up
// too, when the test's own context has ended.
func allowSecrets(ctx context.Context, namespaces string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	line := "helm upgrade holdfast deploy/helm/holdfast --namespace holdfast-system --reuse-values --set 's3Secrets.namespaces={" + namespaces + "}'"
	if out, err := command(ctx, line).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	_, err := kubectl(ctx, "", "rollout", "status", system, "deployment/holdfast-controller", "--timeout=170s")
	return err
}

// secretData is what a Secret holds.
func secretData(t *testing.T, space, name string) map[string]string {
	t.Helper()
	var secret struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(within(t, 10*time.Second, "get", space, "secret/"+name, "-o", "json")), &secret); err != nil {
		t.Fatal(err)
	}
	data := map[string]string{}
	for key, value := range secret.Data {
		data[key] = string(value)
	}
	return data
}

// s3Secret: a claim's Secret opens its bucket to programs that know nothing of
// Holdfast, in pods and outside; it is made again, goes with the claim, and never
// takes the place of another one.
func s3Secret(t *testing.T) {
	name := newNamespace(t)
	space := "--namespace=" + name
	// The chart has a RoleBinding in each of these, so this one is taken out before
	// the namespace goes, and the guide's stays.
	t.Cleanup(func() {
		if err := allowSecrets(context.WithoutCancel(t.Context()), "default"); err != nil {
			t.Error(err)
		}
	})
	if err := allowSecrets(t.Context(), "default,"+name); err != nil {
		t.Fatal(err)
	}
	const foreign = `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken-s3"}, "stringData": {"mine": "stays"}}`
	withInput(t, time.Minute, foreign, "create", space, "-f", "-")
	before := within(t, 10*time.Second, "get", space, "secret/taken-s3", "-o", "jsonpath={.metadata.resourceVersion}")
	withInput(t, time.Minute, asking("data")+asking("taken")+pod("files", "data", 0, build.ShellImage, idle), "apply", space, "-f", "-")
	within(t, time.Minute, "wait", space, "secret/data-s3", "--for=create", "--timeout=50s")
	within(t, time.Minute, "wait", space, "pod/files", "--for=condition=Ready", "--timeout=50s")
	inPod(t, space, "files", "echo text > /data/kept.txt")

	t.Run("InAPod", func(t *testing.T) { runInPod(t, space) })
	for client, line := range map[string]string{
		"Python": "python3 deploy/examples/python/example.py",
		"AWSCLI": "sh deploy/examples/awscli/example.sh",
		"Rclone": "sh deploy/examples/rclone/example.sh",
	} {
		t.Run(client, func(t *testing.T) { runOutside(t, space, line) })
	}

	had := secretData(t, space, "data-s3")
	within(t, 20*time.Second, "delete", space, "secret/data-s3")
	within(t, time.Minute, "wait", space, "secret/data-s3", "--for=create", "--timeout=50s")
	if !maps.Equal(secretData(t, space, "data-s3"), had) {
		t.Error("the Secret that was made again holds something else than the first one")
	}

	told(t, space, "taken", "S3SecretForeign", "taken-s3")
	within(t, time.Minute, "delete", space, "pod/files", "--timeout=50s")
	within(t, time.Minute, "delete", space, "persistentvolumeclaim/data", "persistentvolumeclaim/taken", "--timeout=50s")
	within(t, time.Minute, "wait", space, "secret/data-s3", "--for=delete", "--timeout=50s")
	after := within(t, 10*time.Second, "get", space, "secret/taken-s3", "-o", "jsonpath={.metadata.resourceVersion}")
	if got := secretData(t, space, "taken-s3"); after != before || !maps.Equal(got, map[string]string{"mine": "stays"}) {
		t.Errorf("the foreign Secret is at version %s, was at %s, and holds %d entries", after, before, len(got))
	}
}

// runInPod has the Go example take all that it knows from the Secret.
func runInPod(t *testing.T, space string) {
	withInput(t, time.Minute, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: example}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  containers:
  - {name: main, image: %s, imagePullPolicy: Never, envFrom: [{secretRef: {name: data-s3}}]}
`, build.ExampleImage), "apply", space, "-f", "-")
	var phase string
	eventually(t, time.Minute, func(ctx context.Context) (err error) {
		phase, err = kubectl(ctx, "", "get", space, "pod/example", "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Succeeded" && phase != "Failed" {
			err = fmt.Errorf("its pod is %s", phase)
		}
		return err
	})
	said := within(t, 10*time.Second, "logs", space, "example")
	if phase == "Failed" {
		t.Fatalf("the example: %s", said)
	}
	checkListing(t, said, "example-go.txt")
}

// runOutside runs an example as a user's machine would, with the Secret as its
// environment; the Service's address takes the place of its name.
func runOutside(t *testing.T, space, line string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	address, err := s3Address(ctx)
	if err != nil {
		t.Fatal(err)
	}
	clients := filepath.Join(bin, build.ClientsFolder)
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir = root
	// Nothing of this machine's own settings for S3.
	cmd.Env = []string{"PATH=" + filepath.Join(clients, "bin") + ":" + os.Getenv("PATH"), "PYTHONPATH=" + clients, "HOME=" + t.TempDir()}
	for key, value := range secretData(t, space, "data-s3") {
		if strings.HasPrefix(key, "AWS_ENDPOINT_URL") {
			value = "http://" + address
		}
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	checkListing(t, string(out), "example-")
}

// checkListing: an example has listed its own object, and the file of the mount.
func checkListing(t *testing.T, out, own string) {
	t.Helper()
	for _, want := range []string{own, "kept.txt"} {
		if !strings.Contains(out, want) {
			t.Errorf("the example's list has no %s:\n%s", want, out)
		}
	}
}
