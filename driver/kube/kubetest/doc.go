// Package kubetest gives tests an API server: client-go's fake always, and a real one
// (etcd, kube-apiserver, and the garbage collector of kube-controller-manager) where
// HOLDFAST_KUBE_BIN names the folder with their programs, as make e2e builds them.
//
// Owns: the processes of the real one, which end with the test.
//
// Never: nodes, pods that run, or volumes that are bound; a test writes what a
// controller of Kubernetes would have written.
//
// Locks: none.
package kubetest
