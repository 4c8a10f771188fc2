// Package cluster runs a real Kubernetes of two nodes on one machine, in Linux
// namespaces of its own.
//
// Owns: the namespaces, the processes, mounts and network devices in them, the
// folder that holds keys, logs and the nodes' disks, and the control groups
// /holdfast-e2e-*.
//
// Never: anything outside those namespaces but that folder and those control
// groups; an import of what is tested on it.
//
// Flow: Start clones a process into new mount, network, PID, IPC and UTS
// namespaces (Init, PID 1 there). It makes a bridge, runs etcd and the control
// plane, and clones one process for each node into namespaces of the node's own
// (NodeInit, PID 1 there), which runs containerd, the kubelet and kube-proxy.
// So the end of one process is the end of all beneath it: killing a node's init
// is a power failure of the node, killing the cluster's init ends everything.
// Commands reach Init over HTTP on the loopback of its network namespace, and
// Init reaches a node's init over a socket pair that the node was started with.
//
// Locks: children.mu is held across fork and across wait, so that a child's end
// is never seen before its start is known. slot.mu is held while its node is
// started, stopped or told something; service.mu never across a wait. The order
// is slot.mu, service.mu, children.mu.
package cluster
