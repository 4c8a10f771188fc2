package helm

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"
)

const laptopPage = "../LAPTOP.md"

// laptopLines are the commands of the page for kind, minikube and k3s, each as words.
func laptopLines(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile(laptopPage)
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for _, block := range commands.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			if words := strings.Fields(line); len(words) > 0 {
				lines = append(lines, words)
			}
		}
	}
	if len(lines) < 12 {
		t.Fatalf("%s has only %d commands", laptopPage, len(lines))
	}
	return lines
}

// TestLaptopPage: its commands name what there is: targets, files, objects, and one image
// everywhere. That kind, minikube and k3s do what is asked of them is not shown here.
func TestLaptopPage(t *testing.T) {
	lines := laptopLines(t)
	rendered, images := renderedByPage(t, lines)
	if len(images) != 1 {
		t.Fatalf("with the page's values the chart names %q as Holdfast's image, want one", images)
	}
	saved := dryRun(t, "images", "BUILDER=docker")
	if !strings.Contains(saved, "-t '"+images[0]+"'") {
		t.Errorf("the page's Holdfast has the image %s, and make images does:\n%s", images[0], saved)
	}
	text, err := os.ReadFile(laptopPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`localhost/[a-z0-9/:.-]+`).FindAllString(string(text), -1) {
		if name != images[0] && name != strings.Split(images[0], ":")[0] {
			t.Errorf("the page names the image %s, and installs %s", name, images[0])
		}
	}
	loaded := 0
	for _, words := range lines {
		line := strings.Join(words, " ")
		switch words[0] {
		case "make":
			dryRun(t, words[1:]...)
		case "helm", "kubectl":
			checkNames(t, line, rendered)
		}
		for _, archive := range regexp.MustCompile(`\S+\.tar`).FindAllString(line, -1) {
			loaded++
			if !strings.Contains(saved, "-o '"+archive+"'") {
				t.Errorf("%s: make images does not save %s:\n%s", line, archive, saved)
			}
		}
	}
	if loaded != 3 {
		t.Errorf("%d commands load the archive, want one for each of kind, minikube and k3s", loaded)
	}
}

// renderedByPage is the chart as the page's helm install has it, and Holdfast's images in it.
func renderedByPage(t *testing.T, lines [][]string) (text string, images []string) {
	t.Helper()
	at := slices.IndexFunc(lines, func(words []string) bool { return words[0] == "helm" && words[1] == "install" })
	if at < 0 {
		t.Fatal("the page has no helm install")
	}
	words := lines[at]
	if want := []string{"helm", "install", release, "deploy/helm/" + chartDir, "--namespace", namespace}; !slices.Equal(words[:len(want)], want) {
		t.Errorf("helm install begins with %q, want %q", words[:len(want)], want)
	}
	v := map[string]any{}
	for i, word := range words {
		if word != "--set" {
			continue
		}
		if err := strvals.ParseInto(words[i+1], v); err != nil {
			t.Fatalf("--set %s: %v", words[i+1], err)
		}
	}
	text = manifest(t, v)
	names := map[string]bool{}
	for _, w := range workloads(objects(t, text)) {
		for _, c := range w.containers() {
			if strings.Contains(c.Image, "holdfast") {
				names[c.Image] = true
			}
		}
	}
	return text, slices.Sorted(maps.Keys(names))
}

// dryRun is what make would do; an unknown target is an error.
func dryRun(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"-n", "-C", "../.."}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// checkNames: what a command names is there, files in the checkout and objects in the chart.
func checkNames(t *testing.T, line, rendered string) {
	t.Helper()
	for _, f := range regexp.MustCompile(`deploy/[a-zA-Z0-9/._-]+`).FindAllString(line, -1) {
		if _, err := os.Stat(filepath.Join("../..", f)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, m := range regexp.MustCompile(`(deployment|daemonset|statefulset)/([a-z0-9-]+)`).FindAllStringSubmatch(line, -1) {
		if !strings.Contains(rendered, "\n  name: "+m[2]+"\n") {
			t.Errorf("%s: the chart has no %s", line, m[0])
		}
	}
}
