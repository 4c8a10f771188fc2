package supervise

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// defaultGrace is what most daemons need; one that needs more says so.
	defaultGrace = 10 * time.Second
	// defaultFirst to defaultLast: the first restart is not felt, and a child that
	// dies at once does not eat a core.
	defaultFirst = 200 * time.Millisecond
	defaultLast  = 5 * time.Second
	// defaultHealthy is a life long enough to forgive the deaths before it.
	defaultHealthy = 30 * time.Second
)

// Spec is a child: what to run, as whom, and how to know that it works.
type Spec struct {
	// Name in messages, logs and Status. Unique in a group.
	Name string
	// Path of the program, absolute, and its arguments without the program's name.
	Path string
	Args []string
	// Env is the whole environment: nothing is inherited.
	Env []string
	// Dir is the working directory, absolute.
	Dir string
	// User runs the child as somebody else; only root can. nil keeps our own.
	User *User
	// Inherit are files that the child keeps open, as descriptors 3 and up: a
	// lock, say, that shall be held as long as any child lives.
	Inherit []*os.File
	// LogFile takes stdout and stderr, rotated. Empty keeps the last lines only.
	LogFile string
	// StopGrace is the time between SIGTERM and SIGKILL. 0 means 10 s.
	StopGrace time.Duration
	// Ready returns nil once the child works; ctx ends when the child dies. nil
	// means ready as soon as it runs.
	Ready func(ctx context.Context) error
	// Backoff between a death and the next start.
	Backoff Backoff
}

// User is whom a child runs as: one user, one group, no supplementary groups.
type User struct {
	UID, GID uint32
}

// Backoff is the time between a death and the next start: Min, doubled with each
// death to at most Max, and Min again after a life of Healthy. Zero values mean
// 200 ms, 5 s and 30 s; a negative Min means at once, always.
type Backoff struct {
	Min, Max, Healthy time.Duration
}

// delay after the nth death in a row, counted from 1.
func (b Backoff) delay(n int) time.Duration {
	if b.Min < 0 {
		return 0
	}
	d := b.Min
	for ; n > 1 && d < b.Max; n-- {
		d *= 2
	}
	return min(d, b.Max)
}

func (b Backoff) withDefaults() Backoff {
	if b.Min == 0 {
		b.Min = defaultFirst
	}
	if b.Max == 0 {
		b.Max = max(defaultLast, b.Min)
	}
	if b.Healthy == 0 {
		b.Healthy = defaultHealthy
	}
	return b
}

// Validate says what is wrong with a spec.
func (s Spec) Validate() error {
	switch {
	case s.Name == "" || strings.ContainsAny(s.Name, "/\n\x00"):
		return storage.Errorf(storage.Invalid, "process name %q: must be a plain word", s.Name)
	case !filepath.IsAbs(s.Path):
		return storage.Errorf(storage.Invalid, "%s: program %q: must be an absolute path", s.Name, s.Path)
	case s.Dir != "" && !filepath.IsAbs(s.Dir):
		return storage.Errorf(storage.Invalid, "%s: working directory %q: must be an absolute path", s.Name, s.Dir)
	case s.LogFile != "" && !filepath.IsAbs(s.LogFile):
		return storage.Errorf(storage.Invalid, "%s: log file %q: must be an absolute path", s.Name, s.LogFile)
	case s.User != nil && os.Geteuid() != 0:
		return storage.Errorf(storage.Denied, "%s: only root can run a process as uid %d", s.Name, s.User.UID)
	}
	return nil
}

func (s Spec) withDefaults() Spec {
	if s.StopGrace == 0 {
		s.StopGrace = defaultGrace
	}
	s.Backoff = s.Backoff.withDefaults()
	return s
}
