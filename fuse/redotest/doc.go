// Package redotest kills a mounter at each call to the store that a change of
// names makes, before the call and after it, lets a foreign writer in, and looks
// what the next mounter makes of it: the state before the change or the one after
// it, in some order with what the foreign writer did.
//
// Owns: the coat that dies, the scenarios, and what they may end in.
//
// Never: a particular store. Its user brings one, the fake or the real cluster.
package redotest
