// Package storagetest has the suites of the contracts in storage.
//
// Owns: what every implementation must do, said once. Volume is the suite of the
// data path; Buckets, Access, Records and Capacity are those of the control path.
//
// Never: knowledge of one implementation.
//
// Flow: an implementation's test opens itself and passes itself in; a new one
// earns the whole suite in a few lines.
package storagetest
