// Package claims knows which claim of Kubernetes has which volume of ours.
//
// Owns: the way from a claim to its volume and back, by the two references that
// Kubernetes keeps (claim → PersistentVolume → claim), of which a tenant can write the
// first alone.
//
// Never: names that a tenant can choose. A claim has a volume when the PersistentVolume
// says so by the claim's UID.
//
// Flow: informers → For, Of.
//
// Locks: the informers'.
package claims
