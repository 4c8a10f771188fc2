// Package cluster runs SeaweedFS on one machine: the published binary, pinned to
// one release, as separate processes under supervision.
//
// Owns: the weed processes, the folder with their data and configuration, the
// choice of every flag and port, who is let in (certify.go), and where the binary
// comes from.
//
// Never: what is stored (storage/seaweed and s3client), Kubernetes (the chart
// runs the same binary by StatefulSets), flags and variables of ours (cmd).
//
// Flow: FindWeed finds, or downloads and verifies, the binary. New validates.
// Start locks the folder, checks that it is of our build, writes the
// configuration, starts the master, then the volume servers and the filer, then
// the S3 gateway, and returns when S3 answers. Processes that die are started
// again. Stop ends them in the order in which nothing acknowledged is lost:
// gateway, filer, volume servers, master; Kill ends them at once.
//
// The processes see nothing of the machine's own SeaweedFS: empty HOME and
// working directory, an environment of our own, every configuration file
// that weed would look for elsewhere present on purpose. They listen on one
// address only, on the planned ports only, and report to nobody.
//
// Linking SeaweedFS instead was rejected: it traps signals, keeps its flags in
// globals and calls os.Exit.
//
// Locks: Cluster.mu guards the life's phase and is never held while waiting;
// Cluster.certifying is held while certificates are signed. The
// lock file in the folder is inherited by every weed process, so that a folder
// cannot be opened twice even while the processes of a killed owner still die.
package cluster
