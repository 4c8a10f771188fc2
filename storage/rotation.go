package storage

import "time"

// RetiredKey is an access key that was replaced. Its secret is not kept: who still
// uses it has it.
type RetiredKey struct {
	Access string `json:"access"`
	// Until is when it ends.
	Until time.Time `json:"until"`
}

// Rotation is a replacement of keys that is under way. It is written before the
// new key is made, so that nobody takes a key that the record does not have yet
// for one to be ended.
type Rotation struct {
	// ID tells it from another one.
	ID string `json:"id"`
	// Begun is when it was written; one that is older than a rotation takes is dead.
	Begun time.Time `json:"begun"`
}
