package helm

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// commands are the blocks of the guide that are to be run, in their order. The end-to-end
// tests take them out by the same rule: fences that say sh, at the beginning of a line.
var commands = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestGuide: what the guide tells people to run can be run: by its syntax, and by the files,
// objects and containers that it names. That it works is the end-to-end tests' to show.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := commands.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 7 {
		t.Fatalf("only %d blocks of commands", len(blocks))
	}
	rendered := manifest(t, nil)
	for _, b := range blocks {
		bash := exec.CommandContext(t.Context(), "bash", "-n")
		bash.Stdin = strings.NewReader(b[1])
		if out, err := bash.CombinedOutput(); err != nil {
			t.Errorf("%s\n%v: %s", b[1], err, out)
		}
		if strings.Contains(b[1], "\n\n") || regexp.MustCompile(`[A-Z]{5,}`).MatchString(b[1]) {
			t.Errorf("a block has empty lines, or a place to fill in, and nobody fills it in:\n%s", b[1])
		}
		checkNames(t, b[1], rendered)
	}
}
