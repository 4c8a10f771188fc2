// Package companion is the process of Holdfast that speaks to the Kubernetes API server.
//
// Owns: the clients, the informers that its jobs share, and which of several companions
// works: the one that holds a Lease in its own namespace.
//
// Never: what a job does (s3secret, health, outofservice, podgone). It decides nothing about volumes.
//
// Flow: Run → election → informers, synced → every job, until the Lease is lost or ctx
// ends; after a loss it stands for election again.
//
// Rights: rbac.yaml has them, all and no more (its test compares them with what is
// asked of an API server).
//
// Locks: none. Run waits for every goroutine that it has started.
package companion
