// Package seaweed speaks to a SeaweedFS cluster in its own protocol: names
// through the filer's gRPC, content straight to and from the volume servers, over
// TLS with a client certificate where the cluster is closed.
//
// Owns: the wire (filerpb, volumepb and masterpb hold the messages that we use), the
// turning of its errors into storage.Kind, the location of volumes, the layout of an
// entry, the gateway's users and the policy document that limits one to its bucket, our
// rules among the filer's for where content is placed.
//
// Never: S3 (that is s3client), the local disk, the kernel.
//
// Flow: Open gives a Client for the whole cluster. Client.Volume gives the
// contracts for one bucket, Client.Folder for a folder of one, Client.Under the same
// with a guard before each change. The client is also the keeper of the volumes'
// records and of the gateway's users, which are entries in the filer.
//
// Locks: locations.mu, servers.mu and pool.mu, held over no call and never
// together. placing and an assigner's turn are held over calls, by whoever changes the
// filer's rules or asks for ids; others wait for them or for their contexts.
package seaweed
