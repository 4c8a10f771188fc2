package cluster

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"strings"
	"text/template"
)

// Addresses are those that clusters usually have. They are not seen outside the
// namespaces.
const (
	clusterDomain     = "cluster.local"
	controlAddress    = "192.0.2.1" // of the bridge; the API server is there
	nodePrefix        = "192.0.2.1" // and the node's number
	nodeNetBits       = 24
	apiServiceAddress = "10.96.0.1" // the first of serviceNet, as Kubernetes has it
	serviceNet        = "10.96.0.0/16"
	dnsAddress        = "10.96.0.10"
	podNets           = "10.244.0.0/16"
	apiServerURL      = "https://" + controlAddress + ":6443"
)

// maxNodes is what one digit of an address, and one machine, has room for.
const maxNodes = 9

func nodeAddress(n int) string { return fmt.Sprintf("%s%d", nodePrefix, n) }
func podNet(n int) string      { return fmt.Sprintf("10.244.%d.0/24", n) }

//go:embed config
var config embed.FS

// render writes one of the configuration files; a value that it lacks is an error.
func render(name, path string, values map[string]any) error {
	text, err := config.ReadFile("config/" + name)
	if err != nil {
		return err
	}
	t, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

// lastLines are the end of a log, for an error message.
func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
