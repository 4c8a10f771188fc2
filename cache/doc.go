// Package cache keeps chunks close: a reader around a reader.
//
// Owns: which blocks of which chunks are kept, and for how long.
//
// Never: the network, names of files, the kernel. A chunk's content never
// changes, so nothing here can be outdated.
//
// Flow: fuse asks Chunks as it would ask the store; a miss is fetched once, in
// whole blocks, whoever waits for it. The cache is in memory; one on the node's
// disk, shared by all volumes and kept across restarts, is to take its place.
//
// Locks: Chunks.mu, held over no call.
package cache
