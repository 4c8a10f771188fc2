// Package scenarios holds the end-to-end tests that run on a cluster of package
// cluster, in its namespaces. They need one that runs: holdfast-e2e test.
//
// Owns: the namespaces that it makes in the cluster, and their removal.
//
// Never: an import of what it tests. It uses kubectl and S3, as users do.
//
// Flow: TestMain finds the cluster and kubectl by the environment; each test is
// one story, with a deadline for each thing that it waits for.
//
// Locks: none; the stories run one after the other, for some stop a node.
package scenarios
