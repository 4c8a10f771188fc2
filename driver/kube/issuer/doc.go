// Package issuer keeps what the processes of a cluster need to know each other by, as
// Secrets of one namespace: the authority, certificates, the keys of tokens, the
// administrator's S3 keys.
//
// Owns: those Secrets: their names, marks and owners; when they are looked at.
//
// Never: what stands in them (Keyring, which is storage/cluster's), any other Secret, a
// Secret of the same name that somebody else has made: that is used as far as it goes,
// told, and left as it is.
//
// Flow: Run makes a pass at once and then every ten seconds. A pass reads all Secrets by
// their names, asks the Keyring for each as it shall be, and writes those that differ,
// on the condition that they are as they were read: of two issuers at once, one is
// refused and looks again. The kubelet brings a changed Secret to the files of its
// holders, who read them again.
//
// The roots outlive the installation, like the data that they open. The others belong
// to the issuer's Deployment, and go with it.
//
// Watching was rejected: it needs the right to list all Secrets of the namespace, or a
// stream for each name, and saves a dozen small reads.
//
// Locks: Issuer.mu, held for no call.
package issuer
