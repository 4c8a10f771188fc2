// Package driver is the CSI face of Holdfast: Identity, Controller and Node.
//
// Owns: the CSI protocol; volume ids and bucket names; StorageClass parameters;
// the order of steps in which a volume is made and removed; leases; when a key is
// made and ended, and keyspb, the service for it; the folders that the kubelet
// names.
//
// Never: S3, the filer or mount(2): those are behind storage's contracts and
// Mounter. It keeps no state: a restarted controller learns everything from the
// records, a restarted node from the keeper's mounts and the mount table. It
// never removes anything but an empty folder that is no mount point.
//
// Flow: kubelet or sidecar → unix socket → interceptor (log, gRPC code) →
// pending (one operation per volume) → the operation → contracts. Operations
// return storage's kinds; status.go turns them into gRPC codes, once.
//
// Health: told by records and buckets (controllerhealth.go), and on a node by what
// the mounter knows (health.go), never by touching a mount.
//
// Parameters: params.go is the one table, params_foreign.go what other drivers
// have; adopt.go decides which bucket and folder a volume may have, place.go makes the
// rule for where its content is stored.
//
// PersistentVolumes that bring in a bucket: static.go is the node's side, staticmake.go
// the controller's.
//
// Inline volumes: inline.go is the node's side, inlinemake.go the controller's; they
// meet in the record alone.
//
// Creation: record (creating) → bucket → record (settled: User is set) → rule of
// placement → prepare → user and keys → record (ready). Deletion: record (deleting) →
// user → bucket → rule → record gone, or record (archived); an adopted bucket is not
// touched.
// Each step may be repeated, so a repeated call finishes
// what a crash left. A deletion needs every lease to be over.
//
// Keys: record (rotation) → new key → record (the key, the old one retired) → the
// old key's end → record (settled). Run does the last two when it is time, after a
// crash too.
//
// Leases: a node that stages a volume has one in the volume's record, and renews
// it. What is of one node is staged on another only when its lease was given back,
// or has stood still for its length by the clock of whoever waits
// (storage/lease.go: clocks of two nodes are never compared). The volume enters a
// new epoch then. A call that finds the lease about to end waits for it (await.go).
//
// Locks: pending holds its lock for a map access and no longer. No lock is held
// over I/O. Goroutines: Serve's, which it waits for; both Runs are their callers',
// and the controller's waits for what it has begun for inline volumes; one for each
// path that is measured, at most, which ends with the killed process that asks the
// kernel. Nothing in this package asks a mount itself.
package driver
