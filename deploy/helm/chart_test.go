package helm

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// This file renders the chart, with the code of Helm itself, for each of the values files in
// testdata and for the defaults.

const (
	chartDir  = "holdfast"
	release   = "holdfast"
	namespace = "holdfast-system"
	// oldest is the Kubernetes that Chart.yaml asks for.
	oldest = "v1.30.0"
)

var update = flag.Bool("update", false, "write the golden files and the plain manifests anew")

// cases are the values that everything is tested with.
func cases(t *testing.T) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{"default": {}}
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".values.yaml")] = values(t, string(text))
	}
	if len(all) != 4 {
		t.Fatalf("%d sets of values, want 4", len(all))
	}
	return all
}

func values(t *testing.T, text string) map[string]any {
	t.Helper()
	v := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// render returns the templates' texts by their names, as helm install would send them. edit
// may change what Chart.yaml says.
func render(v map[string]any, edit ...func(*chart.Metadata)) (map[string]string, error) {
	c, err := loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	for _, f := range edit {
		f(c.Metadata)
	}
	capabilities := *common.DefaultCapabilities
	version, err := common.ParseKubeVersion(oldest)
	if err != nil {
		return nil, err
	}
	capabilities.KubeVersion = *version
	all, err := util.ToRenderValues(c, v, common.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}, &capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// manifest is everything that is rendered, in one text.
func manifest(t *testing.T, v map[string]any) string {
	t.Helper()
	files, err := render(v)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := strings.TrimSpace(files[name])
		if text == "" || !strings.HasSuffix(name, ".yaml") {
			continue
		}
		fmt.Fprintf(&b, "---\n# Source: %s\n%s\n", name, strings.TrimSpace(strings.TrimPrefix(text, "---")))
	}
	return b.String()
}

// objects decodes a manifest, strictly: a field that Kubernetes does not know, or one that
// stands twice, is an error.
func objects(t *testing.T, text string) []runtime.Object {
	t.Helper()
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(text)))
	var all []runtime.Object
	buffer := make([]byte, len(text))
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if onlyComments(buffer[:n]) {
			continue
		}
		o, _, err := decoder.Decode(buffer[:n], nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, buffer[:n])
		}
		all = append(all, o)
	}
}

func onlyComments(b []byte) bool {
	for line := range bytes.Lines(b) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

// TestGolden: every change of what is installed is seen in review.
func TestGolden(t *testing.T) {
	for name, v := range cases(t) {
		compare(t, filepath.Join("testdata", name+".golden.yaml"), manifest(t, v))
	}
}

// header stands before the plain manifests: what Helm does by --create-namespace, and what
// the namespace needs besides.
const header = `# Holdfast without Helm: kubectl apply -f holdfast.yaml
#
# Rendered from deploy/helm/holdfast with its default values; do not edit: make manifests.
apiVersion: v1
kind: Namespace
metadata:
  name: holdfast-system
  labels:
    # The keeper mounts for all pods of its node.
    pod-security.kubernetes.io/enforce: privileged
`

// TestManifests: the plain manifests are the chart's, with its default values.
func TestManifests(t *testing.T) {
	// Without Helm nobody runs its hooks.
	text := manifest(t, map[string]any{"uninstallGuard": map[string]any{"enabled": false}})
	if strings.Contains(text, "helm.sh/hook") {
		t.Error("there is a hook in the plain manifests")
	}
	// They are not Helm's, and nobody's release.
	text = strings.ReplaceAll(text, "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl")
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "helm.sh/chart:") {
			kept = append(kept, line)
		}
	}
	text = header + strings.Join(kept, "")
	objects(t, text)
	compare(t, "../manifests/holdfast.yaml", text)
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) == got {
		return
	}
	a, b := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Errorf("%s differs from what the chart renders, first in line %d (make manifests writes it anew)", path, i+1)
			return
		}
	}
}

// TestLint: helm lint has nothing to say but that there is no icon.
func TestLint(t *testing.T) {
	for name, v := range cases(t) {
		for _, m := range lint.RunAll(chartDir, v, namespace).Messages {
			if !strings.Contains(m.Error(), "icon is recommended") {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
}
