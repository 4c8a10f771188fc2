// Package keeper makes, binds and unmounts FUSE sessions and keeps them alive
// over the death of whoever serves them. It is the one privileged part of
// Holdfast, so it is small and starts nothing.
//
// Owns: mount(2), /dev/fuse, and for each session its descriptor, its INIT
// request and the answer to it, and the memfd that its requests are read into.
//
// Never: reads a request beside INIT, looks into that memory, knows what a bucket is, looks into
// Config, touches a file inside a mount without a deadline, makes or removes a
// folder, unmounts what it has not mounted.
//
// Flow: the node process (Node) asks over keeper-node.sock for mounts; the
// mounter (Attach) is connected to keeper-mounter.sock and is granted the
// sessions to serve. A mount is shown at its target only after a mounter serves
// it, so a failure leaves nothing half-made. When the mounter dies the next one
// is granted every session again, once no thread of the old one can still read
// requests. When the keeper dies the mounter holds the same descriptors and
// offers them, and the memory with the requests, to the next keeper, which trusts mountinfo, not the mounter, about
// what is mounted where.
//
// Health (health.go) tells slow from dead and touches nothing.
//
// Identity: the source of each mount is holdfast:TAG:ID[:NAME], TAG being made
// from the run folder. Mounts with another tag belong to another keeper and are
// never touched.
//
// Locks: keys (keyed.go) first, a target before an id, held for a whole
// operation; then session.granting, held while one mounter is asked to serve;
// then Keeper.mu, session.mu or conn.mu, held for no call and never together.
package keeper
