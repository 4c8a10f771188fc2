package driver

import (
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is what fsync means: the parameters durability and commitDelay.
//
// disk (replicas and the filer's store flush too) is not to be had. A filer tells
// neither which store it has nor whether that flushes, by no call: so it cannot be
// proven, and a promise that may not be kept is refused.

// Durability is what fsync(2) means in a volume.
type Durability string

// The durabilities. Without a word of it a volume has ClusterDurability.
const (
	ClusterDurability Durability = "cluster"
	NodeDurability    Durability = "node"
	diskDurability    Durability = "disk"
)

const (
	defaultCommitDelay = time.Second
	// minCommitDelay is some times what a commit takes; maxCommitDelay is what
	// somebody may want to lose.
	minCommitDelay = 100 * time.Millisecond
	maxCommitDelay = 5 * time.Minute
)

var durabilityParameter = parameter{
	name: "durability", values: "cluster or node", usual: string(ClusterDurability), same: string(ClusterDurability),
	text: "Where data is safe when fsync returns. " +
		"cluster: in the cluster. Every replica's server has accepted it, and the file is there for S3 and other nodes; the loss of the node costs nothing. close waits in the same way. " +
		"node: on the disk of the node that has the volume, as with a local disk; the cluster follows in the background within commitDelay, and close waits for nothing. An fsync of 4 KiB takes a quarter of the time of cluster (measured: 0.2 to 0.3), several times that of the bare disk; large files are written to the node's disk twice, and are at most as fast. A power failure of the node costs nothing that was fsynced once the volume is mounted there again; when the node or its disk is lost for good, what was written in the last commitDelay is, and what was on its way. " +
		"Files are brought one by one, not all as they were at the same moment. Names (create, rename, unlink) are in the cluster at once, and a file that is renamed with its content. holdfast volume sync, and unmounting, return when everything is in the cluster. " +
		"Needs a volume of one node (ReadWriteOnce, ReadWriteOncePod). " +
		"disk (servers and the filer's store flush, too) is refused: a filer does not tell which store it has, nor whether that flushes, so it cannot be promised; leveldb, which holdfast up runs, does not.",
	set: func(s *settings, value string) error {
		switch d := Durability(value); d {
		case ClusterDurability, NodeDurability:
			s.durability = d
			return nil
		case diskDurability:
			return storage.Errorf(storage.Invalid, "it needs a filer whose store flushes its disk, and a filer does not tell which store it has, nor whether that flushes (leveldb, which holdfast up runs, does not): it cannot be promised")
		default:
			return errValue
		}
	},
}

var commitDelayParameter = parameter{
	name: "commitDelay", values: "a time from 100ms to 5m, such as 1s", usual: "1s",
	text: "With durability node, how far the cluster may be behind the node's disk: what the loss of the node may cost. " +
		"When the cluster is slower than that, or away for longer, fsync waits for it.",
	set: func(s *settings, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d < minCommitDelay || d > maxCommitDelay {
			return errValue
		}
		s.commitDelay = d
		return nil
	},
}

// oneNode are the modes of a volume that no second node can ask for.
//
//nolint:exhaustive // the others are not
var oneNode = map[mode]bool{writer: true, singleWriter: true, multiWriter: true, reader: true}

// serves says whether a volume with these parameters and access a can be used in mode
// m, as far as they have a say.
func (s settings) serves(a storage.AccessMode, m mode) error {
	if s.durability != NodeDurability || a == storage.Single && oneNode[m] {
		return nil
	}
	return storage.Errorf(storage.Invalid, "parameter durability=%q: access mode %s (access %s) is not one of a single node, and others would not see what only one node's disk has; SINGLE_NODE_WRITER, SINGLE_NODE_SINGLE_WRITER and SINGLE_NODE_MULTI_WRITER (ReadWriteOnce, ReadWriteOncePod) are possible, or durability=cluster", s.durability, m, a)
}
