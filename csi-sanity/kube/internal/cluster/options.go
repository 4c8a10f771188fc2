package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Options say what a cluster is made of.
type Options struct {
	// Folder keeps keys, logs and disks.
	Folder Folder
	// Bin is the folder of the built programs: kube and its links.
	Bin string
	// Images are archives that every node imports; Pause is the name of the one
	// that holds a pod's namespaces.
	Images []string
	Pause  string
	// DNSImage is CoreDNS.
	DNSImage string
	// Nodes is their number, 1 to 9.
	Nodes int
	// Bound ends the cluster with the thread that starts it, so that a run that is
	// killed leaves nothing behind. Its caller keeps that thread.
	Bound bool `json:"-"`
}

// Validate names the option, its value and what is allowed.
func (o Options) Validate() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("namespaces, mounts and control groups of a node need root, and this is uid %d: run it as root, or by sudo", os.Getuid())
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return fmt.Errorf("nodes: %d, allowed are 1 to %d", o.Nodes, maxNodes)
	}
	for _, program := range []string{"kube", "kubectl", "kubelet", "kube-proxy"} {
		if _, err := os.Stat(filepath.Join(o.Bin, program)); err != nil {
			return fmt.Errorf("%w: build it first (holdfast-e2e build)", err)
		}
	}
	for _, image := range o.Images {
		if _, err := os.Stat(image); err != nil {
			return fmt.Errorf("%w: build it first (holdfast-e2e build)", err)
		}
	}
	var missing []string
	for _, tool := range tools {
		if !isFile(tool.path) {
			missing = append(missing, fmt.Sprintf("%s (Debian's package %s)", tool.path, tool.deb))
		}
	}
	if missing != nil {
		return fmt.Errorf("missing on this machine: %s: run deploy/dev/prepare.sh e2e", strings.Join(missing, ", "))
	}
	return nil
}

// tools are the programs that a node runs and that are no Go modules.
var tools = []struct{ path, deb string }{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"/usr/sbin/nft", "nftables"},
	{"/usr/sbin/conntrack", "conntrack"},
	{"/usr/bin/nsenter", "util-linux"},
	{"/bin/mount", "mount"},
	{"/sbin/ip", "iproute2"},
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
