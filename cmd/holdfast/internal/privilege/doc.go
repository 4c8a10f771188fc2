// Package privilege gives root's rights away for good.
//
// Owns: the capabilities of this process.
//
// Never: a change of user. Processes that run as others are started as others.
package privilege
