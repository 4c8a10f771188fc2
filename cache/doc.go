// Package cache keeps chunks close, on the node's disk: a reader around a reader.
//
// Owns: which blocks of which chunks are kept, where and for how long; what is
// read ahead; the files holdfast.blocks, holdfast.index and holdfast.lock in its
// folder, and nothing beside them.
//
// Never: the network, names of files, the kernel. A chunk's content never
// changes, so nothing here can be outdated. An error of the disk never reaches a
// reader.
//
// Flow: fuse asks chunks (one per volume) as it would ask the store. A hit is read
// from the slab's file into the caller's memory and judged by its sums. A miss is
// one fetch, by the reader who came first, whoever waits for it; they have their
// bytes before the disk is written, by a goroutine of its own. streams sees who
// reads on, over the ends of chunks too when it is told the layout (ReadAlong), and
// has blocks fetched ahead. FORMAT.md says what is on the disk, and what was
// measured.
//
// Locks: Cache.mu, then slab.mu; streams.mu alone. None is held over I/O, except
// slab.mu at the start and over fstat(2).
package cache
