package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// plainManifests: the API server accepts every object of the manifests for who
// has no Helm, by its own validation and defaults. They go to another namespace,
// since Helm's objects are where these would be, with other disks; those without a
// namespace meet Helm's, which must be the same but for their labels.
func plainManifests(t *testing.T) {
	name := newNamespace(t)
	text, err := os.ReadFile(filepath.Join(root, "deploy", "manifests", "holdfast.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.ReplaceAll(string(text), "holdfast-system", name)
	out := withInput(t, time.Minute, manifest, "apply", "--dry-run=server", "-f", "-")
	objects := len(regexp.MustCompile(`(?m)^kind: `).FindAllString(manifest, -1))
	if got := strings.Count(out, "(server dry run)"); got != objects || objects < 20 {
		t.Errorf("the API server accepts %d of %d objects:\n%s", got, objects, out)
	}
}
