// Package pki is the cluster's own certificate authority: who holds a certificate
// of it is let in, and nobody else.
//
// Owns: a folder with the authority and the certificates that it has signed, how
// long they live and when they are renewed, and the TLS configuration of those
// who hold one.
//
// Never: a socket; who is allowed where (storage/cluster); revocation. A stolen
// certificate is good until it ends, so they end within a month; a new authority
// (an empty folder, at the next start) ends all at once.
//
// Flow: Open loads the authority or makes one. Authority.Ensure signs what is
// missing, is about to end, or is not as it should be, and replaces its file as a
// whole; it is called at the start and every few seconds after. A holder's
// Files.TLS reads its files again when they have changed, so a renewal needs no
// restart; weed does the same by itself.
//
//	ca.crt     the authority's certificate, for all to read
//	ca.key     the authority's key, with its certificate; nobody else reads it
//	NAME.pem   the key and the certificate of NAME, for its owner alone
//
// A key and its certificate share a file, so that nobody ever reads the one of
// before and the other of after a renewal.
//
// Locks: watched.mu, held while one file is read.
package pki
