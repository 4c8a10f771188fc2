// Package kube is the folder of what speaks to the Kubernetes API server. It has no
// code of its own.
//
// Owns: client-go, which is imported here and below and nowhere else.
//
// Never: CSI. The services of driver work without any of this, and do not import it;
// what both need is handed in by cmd.
//
// Flow: four programs. issuer makes the certificates and keys of the cluster; taint
// frees a node that is ready; inuse looks before an uninstall; companion runs beside the controller: in it, claims knows
// which claim has which volume, tell writes events, and each job has a package of its own
// (s3secret, health, outofservice). companion/rbac.yaml has the rights that they need.
package kube
