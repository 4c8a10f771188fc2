package cluster

import (
	"fmt"
	"net"
	"os"
	"time"
)

// The nodes' network: a bridge in the cluster's namespace, a veth from it to
// each node, and routes between the pods' networks, so that no overlay is
// needed. The bridge has no way to the machine's network.

const bridge = "nodes0"

// leavingDevice is how long the device of a node that was stopped may be there still.
const leavingDevice = 10 * time.Second

func (c *controller) ip(args ...string) error { return c.children.run("/sbin/ip", args...) }

// makeBridge also routes Services from here by way of node 1, so that tests,
// which run here, reach what pods reach.
func (c *controller) makeBridge() error {
	steps := [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge"},
		{"addr", "add", fmt.Sprintf("%s/%d", controlAddress, nodeNetBits), "dev", bridge},
		{"link", "set", bridge, "up"},
		{"route", "add", serviceNet, "via", nodeAddress(1)},
	}
	for n := 1; n <= c.options.Nodes; n++ {
		steps = append(steps, []string{"route", "add", podNet(n), "via", nodeAddress(n)})
	}
	for _, step := range steps {
		if err := c.ip(step...); err != nil {
			return err
		}
	}
	return nil
}

func (c *controller) joinNetwork(n, pid int) error {
	device := "veth" + nodeName(n)
	// The kernel takes away a dead node's device in its own time, and it may be here a
	// moment longer than the node. /sys is the machine's and does not show it.
	for end := time.Now().Add(leavingDevice); ; time.Sleep(leavingDevice / 100) {
		if _, err := net.InterfaceByName(device); err == nil {
			_ = c.ip("link", "del", device)
		}
		err := c.ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(pid))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	return c.ip("link", "set", device, "master", bridge, "up")
}

func (n *nodeInit) configureNetwork() error {
	steps := [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", fmt.Sprintf("%s/%d", nodeAddress(n.number), nodeNetBits), "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "via", controlAddress},
	}
	for other := 1; other <= n.options.Nodes; other++ {
		if other != n.number {
			steps = append(steps, []string{"route", "add", podNet(other), "via", nodeAddress(other)})
		}
	}
	for _, step := range steps {
		if err := n.children.run("/sbin/ip", step...); err != nil {
			return err
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}
