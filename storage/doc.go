// Package storage is the floor of Holdfast: the words that every other package
// speaks, and the contracts between them.
//
// Owns: what a volume, an entry, a chunk, a key and an error are.
//
// Never: a socket, a file, a goroutine, an import beyond the standard library.
//
// Flow: adapters (storage/seaweed, s3client) implement the contracts; the faces
// (driver, fuse) use them; cmd introduces the one to the other. A retry, a
// cache or a fault injector is one more implementation around another.
//
// Every contract with more than one implementation has one suite, in
// storage/storagetest, that all of them pass.
package storage
