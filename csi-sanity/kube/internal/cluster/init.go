package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
)

const (
	// startWait bounds the start of one component; it takes seconds.
	startWait = 90 * time.Second
	// imageWait bounds a node's start: it imports and unpacks all images.
	imageWait = 4 * time.Minute
)

// controller is the cluster's init.
type controller struct {
	options  Options
	folder   Folder
	children *children

	slots []*slot // of node 1 and on
}

// slot is where a node is while it runs. Its lock is held while the node is
// started or stopped, so that these never meet.
type slot struct {
	mu   sync.Mutex
	node *node
}

func (c *controller) slot(n int) (*slot, error) {
	if n < 1 || n > len(c.slots) {
		return nil, fmt.Errorf("there is no node %d: allowed are 1 to %d", n, len(c.slots))
	}
	return c.slots[n-1], nil
}

// Init is PID 1 of the cluster's namespaces. It returns only on failure: the
// cluster ends when this process does.
func Init(optionsFile string) error {
	text, err := os.ReadFile(optionsFile)
	if err != nil {
		return err
	}
	c := &controller{children: newChildren()}
	if err := json.Unmarshal(text, &c.options); err != nil {
		return fmt.Errorf("%s: %w", optionsFile, err)
	}
	c.folder = c.options.Folder
	for range c.options.Nodes {
		c.slots = append(c.slots, &slot{})
	}

	served := make(chan error, 1)
	if err := c.prepare(); err != nil {
		return fmt.Errorf("prepare the cluster's namespaces: %w", err)
	}
	go func() { served <- c.serve() }()
	if err := c.startAll(); err != nil {
		return err
	}
	if err := os.WriteFile(c.folder.path("ready"), nil, 0o644); err != nil {
		return err
	}
	return <-served
}

// prepare makes the namespaces usable: /proc of this PID namespace, names of the
// nodes, the bridge that joins them.
func (c *controller) prepare() error {
	// First of all: a clone of the machine's mounts is shared with the machine.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make all mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := forgetFUSE(); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte("control")); err != nil {
		return err
	}
	hosts := []string{"127.0.0.1 localhost", controlAddress + " control"}
	for n := 1; n <= c.options.Nodes; n++ {
		hosts = append(hosts, nodeAddress(n)+" "+nodeName(n))
	}
	// Nothing outside is reached from here, so nothing outside is asked for names.
	for file, text := range map[string]string{"/etc/hosts": strings.Join(hosts, "\n") + "\n", "/etc/resolv.conf": ""} {
		if err := coverFile(file, c.folder.path(filepath.Base(file)), text); err != nil {
			return err
		}
	}
	return c.makeBridge()
}

// coverFile binds a file with that text over one of the machine's.
func coverFile(file, with, text string) error {
	if err := os.WriteFile(with, []byte(text), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(with, file, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s over %s: %w", with, file, err)
	}
	return nil
}

func (c *controller) startAll() error {
	if err := makeKeys(c.folder, c.options.Nodes); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	if err := c.startControlPlane(); err != nil {
		return err
	}
	started := make(chan error)
	for n := 1; n <= c.options.Nodes; n++ {
		go func() { started <- c.startNode(n) }()
	}
	var failed []error
	for range c.options.Nodes {
		failed = append(failed, <-started)
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return c.startDNS()
}

// startControlPlane runs what a control-plane node has, on the bridge's address.
func (c *controller) startControlPlane() error {
	keys := c.folder.path("keys")
	key := func(name string) string { return filepath.Join(keys, name) }
	const etcd = "http://127.0.0.1:2379"
	if err := c.startService("etcd",
		"--name=e2e", "--data-dir="+c.folder.path("etcd"), "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=e2e=http://127.0.0.1:2380",
		"--unsafe-no-fsync"); err != nil { // its data is removed with the cluster
		return err
	}
	if err := c.startService("kube-apiserver",
		"--etcd-servers="+etcd,
		"--bind-address="+controlAddress, "--secure-port=6443", "--advertise-address="+controlAddress,
		"--service-cluster-ip-range="+serviceNet,
		"--tls-cert-file="+key("apiserver.crt"), "--tls-private-key-file="+key("apiserver.key"),
		"--client-ca-file="+key("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key("service-accounts.pub"),
		"--service-account-signing-key-file="+key("service-accounts.key"),
		"--kubelet-client-certificate="+key("apiserver-kubelet.crt"), "--kubelet-client-key="+key("apiserver-kubelet.key"),
		"--kubelet-certificate-authority="+key("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false"); err != nil {
		return err
	}
	if err := c.waitFor("kube-apiserver", startWait, "get", "--raw", "/readyz"); err != nil {
		return err
	}
	if err := c.startService("kube-controller-manager",
		"--kubeconfig="+key("controller-manager.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--service-account-private-key-file="+key("service-accounts.key"), "--root-ca-file="+key("ca.crt"),
		"--cluster-signing-cert-file="+key("ca.crt"), "--cluster-signing-key-file="+key("ca.key"),
		"--use-service-account-credentials=true", "--profiling=false",
		// A stopped node is noticed in half the usual time: tests wait for it.
		"--node-monitor-grace-period=20s"); err != nil {
		return err
	}
	return c.startService("kube-scheduler",
		"--kubeconfig="+key("scheduler.kubeconfig"), "--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false")
}

func (c *controller) startService(program string, args ...string) error {
	s := &service{
		name: program, log: c.folder.log(program), children: c.children,
		command: append([]string{filepath.Join(c.options.Bin, program)}, args...),
	}
	return s.start()
}

// kubectl runs it as the administrator.
func (c *controller) kubectl(args ...string) error {
	all := append([]string{"--kubeconfig=" + c.folder.Kubeconfig(), "--request-timeout=10s"}, args...)
	return c.children.run(filepath.Join(c.options.Bin, "kubectl"), all...)
}

// waitFor repeats a kubectl command until it succeeds; log names whose log is
// shown when it does not.
func (c *controller) waitFor(log string, wait time.Duration, args ...string) error {
	for until := time.Now().Add(wait); ; time.Sleep(250 * time.Millisecond) {
		err := c.kubectl(args...)
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("waited %v: %w\nthe end of %s:\n%s", wait, err, c.folder.log(log), lastLines(c.folder.log(log), 10))
		}
	}
}

// startDNS installs CoreDNS and waits until it answers its probe.
func (c *controller) startDNS() error {
	manifest := c.folder.path("coredns.yaml")
	if err := render("coredns.yaml", manifest, map[string]any{
		"Image": c.options.DNSImage, "Domain": clusterDomain, "Address": dnsAddress,
	}); err != nil {
		return err
	}
	if err := c.kubectl("apply", "-f", manifest); err != nil {
		return fmt.Errorf("install CoreDNS: %w", err)
	}
	return c.waitFor("kubelet-node1", startWait, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=5s")
}

// startNode runs a node and waits until it is ready.
func (c *controller) startNode(n int) error {
	s, err := c.slot(n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node != nil {
		return nil
	}
	nd, err := c.launchNode(n)
	if err != nil {
		return fmt.Errorf("start %s: %w", nodeName(n), err)
	}
	s.node = nd
	return nil
}

// launchNode clones the node's init, gives it a network, and has it start all.
func (c *controller) launchNode(n int) (*node, error) {
	if err := removeNodeCgroups(c.folder, n); err != nil {
		return nil, err
	}
	if err := makeCgroups(c.folder, n); err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	log, err := os.OpenFile(c.folder.log(nodeName(n)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", nodeInitArgument, c.folder.path("options.json"), fmt.Sprint(n))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	ended, err := c.children.start(cmd)
	if err != nil {
		return nil, err
	}
	nd := &node{number: n, pid: cmd.Process.Pid, commands: ours, ended: ended}
	err = c.bringUp(nd)
	if err != nil {
		nd.kill()
		err = fmt.Errorf("%w\nthe end of %s:\n%s", err, log.Name(), lastLines(log.Name(), 10))
	}
	return nd, err
}

func (c *controller) bringUp(nd *node) error {
	if err := writeProcess(c.folder.nodeFile(nd.number), nd.pid); err != nil {
		return err
	}
	if err := c.joinNetwork(nd.number, nd.pid); err != nil {
		return err
	}
	if err := nd.command("start", imageWait); err != nil {
		return err
	}
	log := "kubelet-" + nodeName(nd.number)
	return c.waitFor(log, startWait, "wait", "--for=condition=Ready", "node/"+nodeName(nd.number), "--timeout=5s")
}

// stopNode is a power failure: all of the node's processes, mounts and network
// devices are gone when it returns, and its disk stays as it is.
func (c *controller) stopNode(n int) error {
	s, err := c.slot(n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return fmt.Errorf("node %d does not run", n)
	}
	s.node.kill()
	s.node = nil
	return os.Remove(c.folder.nodeFile(n))
}

// kubeletCommand stops, starts or restarts a node's kubelet; containers run on.
func (c *controller) kubeletCommand(n int, action string) error {
	s, err := c.slot(n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return fmt.Errorf("node %d does not run", n)
	}
	return s.node.command("kubelet "+action, time.Minute)
}

// forgetFUSE leaves the machine's FUSE mounts to the machine: a copy of one here
// would keep it busy there for as long as the cluster runs.
func forgetFUSE() error {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "fuse" && !strings.HasPrefix(m.FSType, "fuse."), false
	})
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := syscall.Unmount(m.Mountpoint, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("forget the machine's mount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}
