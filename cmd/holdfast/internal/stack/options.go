package stack

import (
	"os"
	"path/filepath"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// IP is the one address that an installation listens on.
const IP = "127.0.0.1"

// VolumeServers of the bundled cluster: with two, one can be away.
const VolumeServers = 2

// Options of an installation. Dir is needed.
type Options struct {
	Dir state.Dir
	// PortBase is the first port; 0 takes the remembered one, else the usual one,
	// else the next that is free.
	PortBase int
	// S3TLS has the S3 gateway speak TLS or not; nil takes the remembered choice.
	S3TLS *bool
	// Weed names the binary ($HOLDFAST_WEED), Cache where one is kept that was
	// downloaded.
	Weed, Cache string
	// Deadline of a call that waits for the cluster ($HOLDFAST_DEADLINE), empty for
	// the mounter's own.
	Deadline string
	// Lease is how long this node keeps its volumes from others when it falls silent
	// ($HOLDFAST_LEASE, for tests), empty for the node's own.
	Lease string
	// NoSlots has the kernel send again what a dead mounter has left, as the second
	// line does ($HOLDFAST_KEEPER_SLOTS=off; for tests).
	NoSlots bool
	// Progress hears what goes on: step of steps, 0 when nobody knows.
	Progress func(step, steps int, text string)
}

func (o Options) report(step, steps int, text string) {
	if o.Progress != nil {
		o.Progress(step, steps, text)
	}
}

func (o Options) accounts() state.Accounts { return state.AccountsFor(os.Getuid(), os.Getgid()) }

// FindOptions are where weed is looked for.
func (o Options) FindOptions() cluster.FindOptions {
	return cluster.FindOptions{
		Path: o.Weed, Cache: o.Cache,
		Progress: func(text string) { o.report(0, 0, text) },
	}
}

// The variables that name weed and the folder for a downloaded one.
const (
	EnvWeed  = "HOLDFAST_WEED"
	EnvCache = "HOLDFAST_CACHE"
)

// The variables that set what the keeper and the mounter are started with.
const (
	EnvDeadline = "HOLDFAST_DEADLINE"
	EnvSlots    = "HOLDFAST_KEEPER_SLOTS"
	EnvLease    = "HOLDFAST_LEASE"
)

// CacheDir is where a downloaded weed is kept. Root's own cache is closed to the
// uid that weed runs as.
func CacheDir(uid int, getenv func(string) string) string {
	if dir := getenv(EnvCache); dir != "" {
		return dir
	}
	if uid == 0 {
		return "/var/cache/holdfast"
	}
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "holdfast")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache", "holdfast")
	}
	return ""
}
