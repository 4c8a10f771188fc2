// Package taint lets pods come to a node once volumes can be mounted there.
//
// A node that joins the cluster runs pods before the driver is registered on it, and a
// pod with a volume then waits for the kubelet's next try. Whoever makes nodes may give
// them the taint Key, which our own pods tolerate; this takes it away.
//
// Owns: that taint, on the node that this runs on.
//
// Never: any other taint or node; a taint that comes back later, which is somebody's will.
//
// Flow: Remove asks for the node's CSINode until it names the driver, removes the taint
// on the condition that the node is as it was read, and returns.
//
// Locks: none.
package taint
