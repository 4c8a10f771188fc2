// Package outofservice ends the leases of nodes that an administrator has given up: by the
// taint node.kubernetes.io/out-of-service, or by deleting the Node.
//
// Owns: that decision, and the events about it.
//
// Never: an end on one word alone. A lease is ended when the node is given up and the
// lease has stood still for its length, and for the time that its last change may take,
// under the eyes of this process (storage/lease.go). So a node that is given up by
// mistake and runs keeps its volumes, and one that comes back finds that it has lost
// them, and overwrites nothing. A silent node that nobody has given up keeps its lease
// here; that the next node may take it over then is the driver's own rule.
//
// What it is good for: the next node waits from its own first look at the lease on. This
// process has looked all the time, so for a node that has been silent for longer than its
// lease the volume moves at once.
//
// Flow: each few seconds, and when a Node changes: records → leases → Nodes.
//
// Locks: none. One goroutine.
package outofservice
