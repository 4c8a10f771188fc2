// Package csisanity tests Holdfast from outside: the built binaries, as a user
// runs them, against a real cluster and real mounts.
//
// Owns: installations in temporary folders, and the proof that nothing of them is
// left afterwards.
//
// Never: an import of what it tests. Nothing imports it.
//
// Flow: TestMain looks for the binaries; shared gives most tests one installation,
// since its start and its stop take seconds; begin gives a test one of its own,
// where something is killed or fails.
package csisanity
