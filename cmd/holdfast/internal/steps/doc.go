// Package steps tells a person how a long operation goes on.
//
// Owns: the bar on a terminal, the lines elsewhere.
//
// Never: standard output, which belongs to what a script reads.
package steps
