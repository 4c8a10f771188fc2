// Package fuse is the file system: it answers the kernel's requests from the
// storage contracts.
//
// Owns: node ids, POSIX semantics, errno, the dirty content of open files until
// it is committed.
//
// Never: SeaweedFS or S3 (it sees storage.Volume alone), mount(2) (fuse/keeper),
// /dev/fuse (fuse/session).
//
// Flow: session → FS method → node → storage.Files and storage.Chunks. The
// stream of changes (watch.go) goes the other way and tells the kernel what to
// forget. Of durability node commits follow in the background (follow.go). What is
// promised to applications stands in SEMANTICS.md.
//
// Who may change a volume of one node is asked before each change: fence.go. What a
// mount does that has lost it: lost.go.
//
// Locks, outermost first: node.turn (held over I/O by design: the changes of one
// file go to the store one after the other), tree (held over I/O by design: a
// folder does not move under a call that names something below it; see tree.go),
// table.mu, node.mu, memo.mu, tree.mu, room.mu, follower.mu. Whoever holds the tree takes no turn and not
// the tree again. No lock but these two is held over a call to the store; records are appended to the journal
// under any of them, since that is a write to the page cache. A notification is
// sent under none.
package fuse
