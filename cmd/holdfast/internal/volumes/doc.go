// Package volumes works with the volumes of a running installation over CSI, as
// Kubernetes would: the controller's socket to make, list, expand and delete,
// the node's to mount.
//
// Owns: the order of CSI calls, and the records of what is mounted on this
// machine.
//
// Never: a mount or an S3 call of its own. What CSI cannot do is not done here.
//
// Flow: Dial, then one method per command. Messages are for people: the text of
// a gRPC error without its code.
package volumes
