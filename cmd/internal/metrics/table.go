package metrics

import (
	"fmt"
	"slices"
	"strings"
)

// This file is the one table of metrics: descriptions and METRICS.md are made from it,
// and nothing else can be told.

// Process is who tells metrics.
type Process string

// The processes that can. The keeper has no port: it is the only privileged process, and
// opens nothing to a network. What it does is seen in the node's calls.
const (
	Controller Process = "controller"
	Node       Process = "node"
	Mounter    Process = "mounter"
)

type kind string

const (
	gauge     kind = "gauge"
	counter   kind = "counter"
	histogram kind = "histogram"
)

// metric is one row.
type metric struct {
	name   string
	kind   kind
	labels []string
	of     []Process
	// sometimes: it is missing while there is nothing to tell.
	sometimes bool
	help      string
}

const (
	volumeLabel = "volume"
	// The results of an operation.
	OK     = "ok"
	Failed = "failed"
)

var (
	everybody  = []Process{Controller, Node, Mounter}
	services   = []Process{Controller, Node}
	controller = []Process{Controller}
	node       = []Process{Node}
	mounter    = []Process{Mounter}
	ofVolume   = []string{volumeLabel}
)

// table, in the order of METRICS.md.
var table = []metric{
	{BuildInfo, gauge, []string{"process", "version", "go_version"}, everybody, false, "1; which process this is, and of which version."},

	{CSICall, histogram, []string{"method", "code"}, services, false, "CSI calls that have ended, by method and gRPC code, and how long they took, in seconds."},

	{Volumes, gauge, []string{"phase"}, controller, true, "Volumes by phase: creating, ready, deleting or archived. Each replica of the controller tells of all."},

	{VolumeCapacity, gauge, ofVolume, node, true, "Size of a volume, as NodeGetVolumeStats said last."},
	{VolumeUsed, gauge, ofVolume, node, true, "What the volume's files hold, likewise."},
	{VolumeAvailable, gauge, ofVolume, node, true, "What may still be written, likewise."},
	{VolumeInodes, gauge, ofVolume, node, true, "Inodes of the volume, likewise. The store has no limit of them, so this is a large number."},
	{VolumeInodesFree, gauge, ofVolume, node, true, "Inodes that may still be made, likewise. How many are in use is not counted."},
	{VolumeState, gauge, []string{volumeLabel, "state"}, node, true, "1 for each state that a mounted volume is in: Healthy, or the reasons of NodeGetVolumeHealth (ARCHITECTURE.md has the table). Missing when it could not be learned within five seconds."},

	{FUSERequest, histogram, []string{"opcode"}, mounter, true, "Requests of the kernel that were answered, by opcode, and how long they took, in seconds. Forgets and interrupts have no answer and are not counted."},
	{FUSEErrors, counter, []string{"opcode"}, mounter, true, "Those that were answered EIO."},
	{VolumeRead, counter, ofVolume, mounter, true, "Bytes that programs have read from a volume, past the kernel's page cache."},
	{VolumeWritten, counter, ofVolume, mounter, true, "Bytes that they have written to it."},

	{CacheHits, counter, nil, mounter, false, "Blocks that were in the chunk cache, or on their way to it, when they were asked for."},
	{CacheMisses, counter, nil, mounter, false, "Blocks that were not."},
	{CacheFetches, counter, nil, mounter, false, "Fetches from the volume servers, read-ahead among them."},
	{CacheAhead, counter, nil, mounter, false, "Those that nobody had asked for yet."},
	{CacheBad, counter, nil, mounter, false, "Cached blocks that were torn or damaged. Each was a miss."},
	{CacheEvictions, counter, nil, mounter, false, "Blocks that made room for others."},
	{CacheRefused, counter, nil, mounter, false, "Blocks that were not kept: the disk failed, or they came faster than it takes them."},
	{CacheFailures, counter, nil, mounter, false, "Failures of the cache's disk."},
	{CacheBytes, gauge, nil, mounter, false, "What the cache takes on the disk."},
	{CacheLimit, gauge, nil, mounter, false, "What it may take."},
	{CacheDisk, gauge, nil, mounter, false, "1 while blocks are kept on the disk, 0 while in memory only."},

	{Upload, histogram, []string{"result"}, mounter, false, "Chunks sent to the volume servers, by result (ok or failed), and how long it took, in seconds."},
	{UploadBytes, counter, nil, mounter, false, "Bytes of the chunks that were stored."},
	{Commit, histogram, []string{"result"}, mounter, false, "Updates of entries in the filer, by result, and how long they took, in seconds. One that failed since somebody else was faster is among the failed ones, and is tried again."},

	{Journal, gauge, ofVolume, mounter, true, "Size of a volume's journal on the node's disk."},
	{Leftovers, gauge, ofVolume, mounter, true, "Files that could not be committed and are kept aside on the node. Look at them when it is not 0."},
	{Behind, gauge, ofVolume, mounter, true, "By how much the cluster is behind what a volume of durability node should have brought to it."},
	{Stream, gauge, ofVolume, mounter, true, "1 while the stream of others' changes is up. While it is 0 nothing is trusted for longer than a second."},
	{Sessions, gauge, []string{"origin"}, mounter, false, "Mounts that this worker serves, by origin: new, or taken_over from a worker before."},
	{Workers, counter, nil, mounter, false, "Workers that the mounter's parent has started: one more is one take-over. The mounter's other counters begin anew with each."},
}

// The names.
const (
	BuildInfo = "holdfast_build_info"

	CSICall = "holdfast_csi_call_duration_seconds"

	Volumes = "holdfast_volumes"

	VolumeCapacity   = "holdfast_volume_capacity_bytes"
	VolumeUsed       = "holdfast_volume_used_bytes"
	VolumeAvailable  = "holdfast_volume_available_bytes"
	VolumeInodes     = "holdfast_volume_inodes"
	VolumeInodesFree = "holdfast_volume_inodes_available"
	VolumeState      = "holdfast_volume_state"

	FUSERequest   = "holdfast_fuse_request_duration_seconds"
	FUSEErrors    = "holdfast_fuse_io_errors_total"
	VolumeRead    = "holdfast_volume_read_bytes_total"
	VolumeWritten = "holdfast_volume_written_bytes_total"

	CacheHits      = "holdfast_cache_hits_total"
	CacheMisses    = "holdfast_cache_misses_total"
	CacheFetches   = "holdfast_cache_fetches_total"
	CacheAhead     = "holdfast_cache_read_ahead_total"
	CacheBad       = "holdfast_cache_bad_blocks_total"
	CacheEvictions = "holdfast_cache_evictions_total"
	CacheRefused   = "holdfast_cache_refused_total"
	CacheFailures  = "holdfast_cache_disk_failures_total"
	CacheBytes     = "holdfast_cache_bytes"
	CacheLimit     = "holdfast_cache_limit_bytes"
	CacheDisk      = "holdfast_cache_disk_usable"

	Upload      = "holdfast_upload_duration_seconds"
	UploadBytes = "holdfast_upload_bytes_total"
	Commit      = "holdfast_commit_duration_seconds"

	Journal   = "holdfast_volume_journal_bytes"
	Leftovers = "holdfast_volume_leftovers"
	Behind    = "holdfast_volume_behind_seconds"
	Stream    = "holdfast_volume_stream_up"
	Sessions  = "holdfast_mounter_sessions"
	Workers   = "holdfast_mounter_workers_started_total"
)

// row finds a metric of a process. Whoever asks for another has made a mistake that every
// test meets.
func row(of Process, name string) metric {
	i := slices.IndexFunc(table, func(m metric) bool { return m.name == name && slices.Contains(m.of, of) })
	if i < 0 {
		panic(fmt.Sprintf("metric %s of the %s is not in the table", name, of))
	}
	return table[i]
}

// Document is METRICS.md. A test holds the file to it; make generate writes it anew.
func Document() string {
	var b strings.Builder
	b.WriteString(`<!-- Made from the table in cmd/internal/metrics/table.go by make generate. -->

# Metrics

Controller, node and mounter (` + "`holdfast controller`, `holdfast node`, `holdfast-mount serve`" + `) tell Prometheus of themselves at ` + "`/metrics`" + ` of the address that ` + "`--metrics-address`" + ` gives, such as ` + "`:9809`" + ` or ` + "`127.0.0.1:9809`" + `; without the flag no port is opened. There too: ` + "`/livez`" + ` (200 while the process lives) and ` + "`/readyz`" + ` (200 while what it stands on answers: the filer for the controller, the keeper for the node; a mounter that answers is ready; else 503 with the reason). It is plain HTTP and asks for no credentials: nothing secret is told, but the ids of volumes and how much they are used are, so bind it where only Prometheus comes. The keeper has no port: it is the one privileged process, and opens nothing to a network.

A value that cannot be learned is missing, and never 0. Volumes are told by id, and only those that are mounted on the node, so there are as many series as mounts. Beside these there are the usual ` + "`go_…` and `process_…`" + `.

| metric | type | labels | of | |
|---|---|---|---|---|
`)
	for _, m := range table {
		labels := "-"
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		var of []string
		for _, p := range m.of {
			of = append(of, string(p))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, labels, strings.Join(of, ", "), m.help)
	}
	b.WriteString(`
## Worth an alert

| when | because |
|---|---|
| ` + "`holdfast_volume_leftovers > 0`" + ` | something that a program wrote is on the node alone, and needs a human |
| ` + "`holdfast_volume_state{state!=\"Healthy\"} == 1`" + ` for minutes | the volume is slow, or nobody serves it |
| ` + "`holdfast_volume_used_bytes / holdfast_volume_capacity_bytes > 0.9`" + ` | writes will get ENOSPC |
| ` + "`increase(holdfast_mounter_workers_started_total[1h]) > 3`" + ` | the mounter's worker dies again and again |
| ` + "`increase(holdfast_cache_bad_blocks_total[1h]) > 0`" + ` | the node's disk gives back other bytes than were written |
| ` + "`holdfast_volume_stream_up == 0`" + ` for minutes | the mounter cannot follow changes: the filer is out of reach |
`)
	return b.String()
}
