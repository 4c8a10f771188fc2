package memory

import "sync"

// Store is a whole SeaweedFS in memory: buckets, users, records, rules, space, and
// the files of the buckets. It is the fake that every unit test stands on, so it
// passes the suites of storage/storagetest that the real adapters pass.
//
// Each part keeps its state in a struct of its own, in its own file; one lock is
// over all of them, as nothing here waits for anything.
type Store struct {
	mu      sync.Mutex
	control control
}

// New makes an empty store.
func New() *Store {
	return &Store{control: newControl()}
}
