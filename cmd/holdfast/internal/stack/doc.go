// Package stack runs a whole installation on one machine: the cluster, the two
// CSI services, the keeper and the mounter.
//
// Owns: which processes there are, as whom and in which order they start and
// stop, and what is told of them in run/status.json.
//
// Never: what a process does, or how one is kept alive (storage/cluster/supervise).
//
// Flow: Up makes the choices (ports, binaries, keys) and starts the supervisor in
// the background, or Run is the supervisor in the foreground. It holds the
// supervisor lock for as long as it lives. Down unmounts, ends the supervisor and
// waits for it.
//
// Everything the supervisor starts dies with it, but the keeper and the mounter:
// they hold the mounts, applications wait on them, and the next supervisor finds
// them again.
package stack
