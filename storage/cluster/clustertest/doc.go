// Package clustertest gives tests a real SeaweedFS cluster.
//
// Owns: a folder, free ports and random keys for each cluster, all gone at the
// end of the test.
//
// Never: anything but tests; it reads HOLDFAST_WEED and HOLDFAST_CACHE from the
// environment, which no other package below cmd does.
//
// Flow: Start for one test, StartForMain for all tests of a package.
//
// Locks: none. A base of ports is reserved across test binaries by an abstract
// unix socket, which vanishes with its process.
package clustertest
