package csisanity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The load is what applications do, each kind in a file load_*.go of its own, with
// a check after each step: no call fails, what is read is what was written, nothing
// happens twice. The kill tests run it while something dies. No kind touches what
// another one has made, so that each knows what must be there.

// stallLimit is when a call that does not return is a failure of its own.
const stallLimit = 2 * time.Minute

type load struct {
	t       *testing.T
	v       *volume
	dir     string
	seed    uint64
	started time.Time
	done    atomic.Int64
	// hang is called when a step does not return.
	hang func(what string)

	mu struct {
		sync.Mutex
		longest time.Duration
		at      string
		// ledger is what must be there at the end, by its path in the volume.
		ledger map[string][]byte
		// checks are made at the end beside it.
		checks []func(ctx context.Context) error
		events []string
	}
}

// newLoad is a load on a mounted volume. The seed is a new one unless
// HOLDFAST_SEED repeats a run.
func newLoad(t *testing.T, v *volume, dir string) *load {
	t.Helper()
	l := &load{t: t, v: v, dir: dir, seed: rand.Uint64(), started: time.Now()}
	l.mu.ledger = map[string][]byte{}
	l.hang = l.endAll
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &l.seed); err != nil {
			t.Fatalf("HOLDFAST_SEED: %v", err)
		}
	}
	return l
}

// kind is one kind of application.
type kind struct {
	name string
	work func(ctx context.Context, rng *rand.Rand) error
}

func (l *load) kinds() []kind {
	return []kind{
		{"overwrite", l.overwrite},
		{"names", l.names},
		{"read", l.read},
		{"append", l.appendTo},
		{"unlinked", l.unlinked},
		{"renamed over", l.renamedOver},
		{"foreign", l.foreign},
		{"foreign under readers", l.foreignUnderReaders},
		{"moved folders", l.movedFolders},
		{"removal", l.removal},
		{"mmap", l.mmap},
		{"sqlite", l.sqlite},
		{"fsynced", l.fsynced},
	}
}

// start runs every kind until ctx ends. The first failure calls stop. The function
// that it returns waits for all of them.
func (l *load) start(ctx context.Context, stop func()) (wait func()) {
	var running sync.WaitGroup
	only := strings.Split(os.Getenv("HOLDFAST_LOAD"), ",") // some of them, to look for what one does
	for i, k := range l.kinds() {
		if only[0] != "" && !slices.Contains(only, k.name) {
			continue
		}
		running.Go(func() {
			if err := k.work(ctx, l.random(uint64(i))); err != nil {
				l.fail(fmt.Errorf("%s: %w", k.name, err))
				stop()
			}
		})
	}
	return running.Wait
}

// random is a source of its own for each kind, the same for the same seed.
func (l *load) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, stream)) }

// fail reports with what is needed to find out: the seed, the time, and what was
// killed before.
func (l *load) fail(err error) {
	l.mu.Lock()
	events := slices.Clone(l.mu.events[max(0, len(l.mu.events)-6):])
	l.mu.Unlock()
	l.t.Errorf("seed %d, after %v: %v\nbefore: %q", l.seed, l.age(), err, events)
}

// note keeps what was done to the installation.
func (l *load) note(format string, args ...any) {
	l.mu.Lock()
	l.mu.events = append(l.mu.events, fmt.Sprintf("%v %s", l.age(), fmt.Sprintf(format, args...)))
	l.mu.Unlock()
}

func (l *load) age() time.Duration { return time.Since(l.started).Round(time.Millisecond) }

// longest is the longest time that one step took, and which one it was.
func (l *load) longest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%v (%s)", l.mu.longest.Round(time.Millisecond), l.mu.at)
}

// step runs one operation and measures it. Its error says what was done, and where.
func (l *load) step(what string, f func() error) error {
	start := time.Now()
	hang := time.AfterFunc(stallLimit, func() { l.hang(what) })
	err := f()
	hang.Stop()
	took := time.Since(start)
	l.done.Add(1)
	l.mu.Lock()
	if took > l.mu.longest {
		l.mu.longest, l.mu.at = took, what
	}
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w (begun at %v)", what, err, start.Sub(l.started).Round(time.Millisecond))
	}
	return nil
}

// endAll ends everything, since a call that waits for a mount can be ended in no
// other way. The worker's last words are its goroutines.
func (l *load) endAll(what string) {
	l.fail(fmt.Errorf("%s: no answer for %v", what, stallLimit))
	l.v.in.dumpGoroutines()
	l.v.in.killAll()
}

// keep puts a file into the ledger.
func (l *load) keep(path string, content []byte) {
	l.mu.Lock()
	l.mu.ledger[path] = content
	l.mu.Unlock()
}

// finally is checked when the load has ended, on the volume mounted anew.
func (l *load) finally(check func(ctx context.Context) error) {
	l.mu.Lock()
	l.mu.checks = append(l.mu.checks, check)
	l.mu.Unlock()
}

// verify compares everything in the ledger, over S3 and in the volume mounted
// anew: what was acknowledged stands in the cluster, not only on this node.
func (l *load) verify() {
	l.t.Helper()
	if l.t.Failed() {
		return
	}
	l.v.remount(l.t, l.dir)
	client := l.v.client()
	for _, path := range slices.Sorted(maps.Keys(l.mu.ledger)) {
		want := l.mu.ledger[path]
		got, err := os.ReadFile(filepath.Join(l.dir, path))
		if err = errors.Join(err, differ(got, want)); err != nil {
			l.fail(fmt.Errorf("%s, mounted anew: %w", path, err))
		}
		out, err := client.GetObject(l.t.Context(), &s3.GetObjectInput{Bucket: &l.v.Bucket, Key: aws.String(path)})
		if err != nil {
			l.fail(fmt.Errorf("%s, over S3: %w", path, err))
			continue
		}
		got, err = io.ReadAll(out.Body)
		if err = errors.Join(err, out.Body.Close(), differ(got, want)); err != nil {
			l.fail(fmt.Errorf("%s, over S3: %w", path, err))
		}
	}
	for _, check := range l.mu.checks {
		if err := check(l.t.Context()); err != nil {
			l.fail(err)
		}
	}
	l.t.Logf("%d files are there, in the mount and over S3", len(l.mu.ledger))
}

// differ says where and how two contents differ.
func differ(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	to := at
	for to < min(len(got), len(want)) && got[to] != want[to] {
		to++
	}
	show := func(b []byte) string {
		b = b[min(at, len(b)):min(at+16, len(b))]
		return fmt.Sprintf("%x", b)
	}
	return fmt.Errorf("another content: %d bytes, want %d; they differ from byte %d (to about %d): %s, want %s; sha256 %x, want %x",
		len(got), len(want), at, to, show(got), show(want), first(sha256.Sum256(got)), first(sha256.Sum256(want)))
}

func first(sum [sha256.Size]byte) []byte { return sum[:4] }

// noise is content that is nowhere else.
func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			b[i+k] = byte(v >> (8 * k))
		}
	}
	return b[:n]
}
