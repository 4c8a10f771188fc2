// Package s3client speaks S3 to one endpoint, SeaweedFS's gateway.
//
// Owns: the S3 protocol, its signing, retries, deadlines and error codes; the wait
// until the gateway knows of a change of users.
//
// Never: the filer, the master or a volume server; a decision about what a
// volume is, or about what a tenant may do.
//
// Flow: driver → storage.Buckets → Client → one attempt after another until the
// answer is not Unavailable; driver → storage.Access → Settled → whoever changes the
// users, then Client, which asks the gateway. What the wire says becomes a
// storage.Kind in kind.go and nowhere else. The SDK's own retries are off: they
// would multiply ours and retry what is not Unavailable.
//
// Locks: none. A Client has no state and may be used by many goroutines.
package s3client
