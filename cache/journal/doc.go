// Package journal keeps a log on the node's disk that outlives the process.
//
// Owns: the form of the file (FORMAT.md): framing, checksums, torn tails,
// compaction, and the reserve that is left for the records that make a full disk
// emptier.
//
// Never: what the records mean. The page cache outlives the process; the machine is
// outlived by what Sync has flushed, in a log of OpenDurable.
//
// Flow: Open replays what is there, one record at a time; Append adds, and
// AppendHalf and AppendReserved add on a full disk too; Sync flushes; Compact writes
// the live state anew while others append.
//
// Locks, outermost first: Log.syncing, held over fdatasync(2); Log.mu, held over one
// write(2), and at the end of the compaction of a durable log over its flush. Append may be called under any lock;
// the function given to Compact may take any lock, since Log.mu is not held
// while it runs.
package journal
