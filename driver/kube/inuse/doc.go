// Package inuse says which pods have volumes of the driver, and which volumes are about to
// be deleted: whoever takes the driver away takes the files of the ones away, and leaves
// the others for ever.
//
// Owns: those questions to the API server.
//
// Never: a change of anything.
//
// Flow: Find reads all PersistentVolumes and then all pods, page by page. Asking the nodes
// was rejected: it is those that may be broken when somebody wants to uninstall.
//
// Locks: none.
package inuse
