// Package podgone tells the store which pods with inline volumes are no more, so that the
// buckets of a lost node's pods go too: a node that lives gives them up by itself.
//
// Owns: the question to the API server, which is about a pod's UID.
//
// Never: a deletion, nor a judgement about nodes. What was said to be gone is deleted by a
// controller once nobody's lease lives (storage.PodGone): a node that is cut off from the
// API server and not from the cluster keeps what its containers still write to.
//
// Flow: each half minute: records of inline volumes → their pods → PodGone.
//
// Locks: none. One goroutine.
package podgone
