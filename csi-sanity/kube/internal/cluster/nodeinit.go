package cluster

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	nodeInitArgument    = "node-init"
	clusterInitArgument = "cluster-init"

	// commandsFD is the first of exec.Cmd's ExtraFiles.
	commandsFD = 3
	// importers is how many images are imported at a time.
	importers = 2
)

// nodeInit is PID 1 of one node.
type nodeInit struct {
	number   int
	options  Options
	folder   Folder
	children *children
	services map[string]*service
}

// NodeInit prepares the node's namespaces and then does what the cluster's init
// asks for, until it is killed or the cluster is.
func NodeInit(optionsFile, number string) error {
	text, err := os.ReadFile(optionsFile)
	if err != nil {
		return err
	}
	n := &nodeInit{children: newChildren(), services: map[string]*service{}}
	if err := json.Unmarshal(text, &n.options); err != nil {
		return fmt.Errorf("%s: %w", optionsFile, err)
	}
	n.folder = n.options.Folder
	if n.number, err = strconv.Atoi(number); err != nil {
		return err
	}
	commands := os.NewFile(commandsFD, "commands")
	syscall.CloseOnExec(commandsFD)
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		answer := "ok"
		if err := n.do(lines.Text()); err != nil {
			answer = strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", `\n`)
		}
		if _, err := fmt.Fprintln(commands, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (n *nodeInit) do(command string) error {
	switch command {
	case "start":
		return n.start()
	case "kubelet stop":
		return n.services["kubelet"].stop(syscall.SIGTERM, 30*time.Second)
	case "kubelet start":
		return n.services["kubelet"].start()
	case "kubelet restart":
		if err := n.do("kubelet stop"); err != nil {
			return err
		}
		return n.do("kubelet start")
	default:
		return fmt.Errorf("unknown command %q: allowed are start, kubelet stop, kubelet start and kubelet restart", command)
	}
}

func (n *nodeInit) start() error {
	for _, step := range []func() error{
		n.prepareMounts, n.configureNetwork, n.writeConfiguration,
		n.startContainerd, n.importImages, n.startKubernetes,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// prepareMounts gives the node a /proc, a /run that goes with it, and its disk,
// and shares all mounts within: Bidirectional propagation needs that. Towards
// the outside they are private, since the whole tree was made so at the start.
func (n *nodeInit) prepareMounts() error {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Sethostname([]byte(nodeName(n.number))); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	disk := n.folder.Disk(n.number)
	for inside, target := range map[string]string{"lib": "/var/lib", "log": "/var/log"} {
		source := filepath.Join(disk, inside)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s over %s: %w", source, target, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/cni/net.d", "/var/lib/kubelet"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// A node that comes back has another boot ID: the kubelet tells of a reboot by
	// it. It is the machine's own for containers, which mount a /proc of theirs.
	if err := coverFile("/proc/sys/kernel/random/boot_id", "/run/boot-id", randomUUID()+"\n"); err != nil {
		return err
	}
	machineID := fmt.Sprintf("%s%024d\n", n.folder.id(), n.number)
	if isFile("/etc/machine-id") {
		if err := coverFile("/etc/machine-id", "/run/machine-id", machineID); err != nil {
			return err
		}
	}
	return n.children.run("/bin/mount", "--make-rshared", "/")
}

func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (n *nodeInit) writeConfiguration() error {
	values := map[string]any{
		"Name": nodeName(n.number), "Address": nodeAddress(n.number), "Keys": n.folder.path("keys"),
		"PodNet": podNet(n.number), "PodNets": podNets, "DNSAddress": dnsAddress, "ClusterDomain": clusterDomain,
		"PauseImage": n.options.Pause, "CgroupRoot": cgroupRoot(n.folder, n.number),
	}
	for name, path := range map[string]string{
		"cni.conflist": "/run/cni/net.d/10-e2e.conflist", "containerd.toml": "/run/containerd.toml",
		"kubelet.yaml": "/run/kubelet.yaml", "kube-proxy.yaml": "/run/kube-proxy.yaml",
	} {
		if err := render(name, path, values); err != nil {
			return err
		}
	}
	return nil
}

func (n *nodeInit) startService(name string, command ...string) error {
	s := &service{name: name, log: n.folder.log(name + "-" + nodeName(n.number)), command: command, children: n.children}
	n.services[name] = s
	return s.start()
}

func (n *nodeInit) startContainerd() error {
	if err := n.startService("containerd", "/usr/bin/containerd", "--config", "/run/containerd.toml"); err != nil {
		return err
	}
	for until := time.Now().Add(startWait); ; time.Sleep(100 * time.Millisecond) {
		err := n.ctr("version")
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			log := n.services["containerd"].log
			return fmt.Errorf("containerd does not answer after %v: %w\nthe end of %s:\n%s", startWait, err, log, lastLines(log, 10))
		}
	}
}

func (n *nodeInit) ctr(args ...string) error {
	return n.children.run("/usr/bin/ctr", append([]string{"--address=/run/containerd/containerd.sock", "--namespace=k8s.io"}, args...)...)
}

// importImages gives containerd what a registry would, once: a node that comes back
// has them on its disk.
func (n *nodeInit) importImages() error {
	imported := filepath.Join(n.folder.Disk(n.number), "images-imported")
	if isFile(imported) {
		return nil
	}
	work := make(chan string)
	done := make(chan error)
	for range importers {
		go func() {
			var failed error
			for image := range work {
				if failed == nil {
					failed = n.ctr("images", "import", image)
				}
			}
			done <- failed
		}()
	}
	for _, image := range n.options.Images {
		work <- image
	}
	close(work)
	var failed error
	for range importers {
		if err := <-done; err != nil {
			failed = fmt.Errorf("import an image: %w", err)
		}
	}
	if failed != nil {
		return failed
	}
	return os.WriteFile(imported, nil, 0o644)
}

func (n *nodeInit) startKubernetes() error {
	if err := n.startService("kubelet", filepath.Join(n.options.Bin, "kubelet"),
		"--config=/run/kubelet.yaml", "--kubeconfig="+n.folder.path("keys", nodeName(n.number)+".kubeconfig"),
		"--hostname-override="+nodeName(n.number), "--node-ip="+nodeAddress(n.number), "--v=2"); err != nil {
		return err
	}
	return n.startService("kube-proxy", filepath.Join(n.options.Bin, "kube-proxy"),
		"--config=/run/kube-proxy.yaml", "--hostname-override="+nodeName(n.number), "--v=2")
}
