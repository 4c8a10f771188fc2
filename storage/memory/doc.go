// Package memory is a store in memory, for the tests of what stands on the
// floor.
//
// Owns: Store, the control path (buckets, users, records, rules, space), and Bucket,
// the names and chunks of one volume.
//
// Never: a socket or a file. It passes the suites of storage/storagetest, which
// the real cluster passes too: so a test on it tells something.
//
// Locks: one mutex for each Store and each Bucket. A watcher's callback is
// called under the bucket's and must not call back.
package memory
