// Package s3secret keeps a Secret with a volume's S3 address and keys beside each claim
// that asks for one.
//
// Owns: Secrets that have the claim as their owner, by its UID; which keys stand in them
// (content.go); and who may have them (allow.go).
//
// Never: a Secret that has not the claim as its owner, a namespace that the administrator
// has not named, or the keys of a volume that the claim does not own. A secret is in no
// log, event or error.
//
// Flow: a claim, its PersistentVolume or its Secret changes, or some seconds have passed
// → Reconcile → the volume's record → the Secret as it should be. The passing of time is
// how a rotation of keys is seen: the record is in the store, and has no watch.
//
// Removal: with the claim, by the garbage collector of Kubernetes, through the owner
// reference. So there is no finalizer, and a claim can be deleted while none of us runs.
//
// Locks: none of its own; the queue gives a claim to one worker at a time.
package s3secret
