// Holdfast-mount is the data plane: the keeper, which mounts, and the mounter,
// which serves.
//
// Owns: flags, signals, logs, exit codes, and the life of the mounter's worker.
//
// Never: a decision about files, names or mounts.
//
// Flow: "keeper" runs fuse/keeper. "serve" is a small parent that starts
// "worker" again whenever it dies; the worker attaches to the keeper, and for
// each session it is granted it stacks a file system (filesystem.go) and a
// fuse/session. A worker that dies loses nothing: the keeper has the sessions,
// the next worker is granted them.
//
// Locks: server.mu guards the map of sessions and is held for no call.
package main
