// Package health tells people, by events on claims and pods, which volumes are not well.
//
// Owns: when that is told, and when its end is. The reason of an event is the state's
// name in ARCHITECTURE.md, and Well when it is over.
//
// Never: what is well. The controller says it of records and buckets, and each node of
// its mounts, in its report (storage/report.go). A node has no rights at the API server.
// Kubernetes 1.37 has fields for this in claims and pods (healthStatus, alpha), which its
// own sidecar and the kubelet fill from the same calls; they are left to those.
//
// Flow: each few seconds, reports and the controller's list → what is new, what lasts,
// what is gone → claims of the volume, and the pods of the node that have the claim.
//
// Locks: none. One goroutine.
package health
