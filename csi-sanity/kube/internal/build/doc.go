// Package build makes what a cluster runs: programs from Go modules at pinned
// versions, and images of them.
//
// Owns: the folder that it builds into; beside each archive a file that says of
// what it was made.
//
// Never: a registry of images, or work whose inputs are those of the last time.
//
// Flow: All builds the programs of each module whose own files have changed,
// those of this checkout always (go knows by itself what is new), and then the
// archives whose parts have changed.
//
// Locks: none; one build at a time in a folder.
package build
