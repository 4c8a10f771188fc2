// Package process knows processes by more than their number.
//
// Owns: telling whether a process noted earlier is still the same one, and who
// holds a mount open.
//
// Never: a kill of a process whose start time does not match.
package process
