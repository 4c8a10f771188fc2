package cluster

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every change of a flag shall be seen in review.
func TestCommandsGolden(t *testing.T) {
	o := valid()
	o.VolumeServers = 3
	o.PKI, o.S3TLS = "/data/pki", true
	var b strings.Builder
	for _, s := range specs(o.withDefaults(), "KEK") {
		b.WriteString(s.Name + "\n")
		for _, part := range append(append([]string{}, s.Env...), append([]string{s.Path}, s.Args...)...) {
			b.WriteString("  " + part + "\n")
		}
		b.WriteString("  in " + s.Dir + ", log " + s.LogFile + ", grace " + s.StopGrace.String() + "\n")
	}
	const golden = "testdata/commands.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("differs from %s (go test -update writes it anew):\n%s", golden, b.String())
	}
}
