// Package inuse says which pods have volumes of the driver: whoever takes the driver away
// takes their files away.
//
// Owns: that question to the API server, once.
//
// Never: a change of anything.
//
// Flow: Find reads all PersistentVolumes and then all pods, page by page. Asking the nodes
// was rejected: it is those that may be broken when somebody wants to uninstall.
//
// Locks: none.
package inuse
