// Package doctor finds out what this machine lacks.
//
// Owns: the list of what Holdfast needs from a machine, how each is seen, and
// how it is mended.
//
// Never: a change to the machine.
package doctor
