// Package s3client speaks S3 and IAM to one endpoint, SeaweedFS's gateway.
//
// Owns: the S3 and IAM protocols, their signing, retries, deadlines and error
// codes; the policy document that limits a tenant to its bucket.
//
// Never: the filer, the master or a volume server; a decision about what a
// volume is; a legacy SeaweedFS action ("Write:bucket" would also allow changes
// of versioning and lifecycle).
//
// Flow: driver → storage.Buckets and storage.Access → Client → one attempt after
// another until the answer is not Unavailable. What the wire says becomes a
// storage.Kind in kind.go and nowhere else. The SDK's own retries are off: they
// would multiply ours and retry what is not Unavailable.
//
// Locks: a turn for calls that change users (retry.go), held for one attempt. A
// Client has no other state and may be used by many goroutines.
package s3client
