package csisanity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// TestKillWorkers kills the process that serves the mount again and again, under
// a load that checks all that it does: no call fails, nothing that was
// acknowledged is lost, nothing is done twice. HOLDFAST_CHAOS sets how long it
// goes on, and HOLDFAST_SEED repeats a run.
func TestKillWorkers(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	mounter := in.mustStatus(t).component(t, "mounter").PID

	span := 12 * time.Second
	if s := os.Getenv("HOLDFAST_CHAOS"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("HOLDFAST_CHAOS: %v", err)
		}
		span = d
	}
	seed := rand.Uint64()
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatalf("HOLDFAST_SEED: %v", err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), span)
	defer stop()
	l := &load{t: t, dir: dir, v: v}
	var running sync.WaitGroup
	for i, work := range []func(context.Context, *rand.Rand) error{l.overwrite, l.names, l.read, l.appendTo, l.unlinked, l.foreign} {
		running.Go(func() {
			if err := work(ctx, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
				t.Errorf("seed %d: %v", seed, err)
				stop()
			}
		})
	}
	kills := 0
	rng := rand.New(rand.NewPCG(seed, 99))
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(50*time.Millisecond + time.Duration(rng.Int64N(int64(500*time.Millisecond)))):
		}
		for _, pid := range children(mounter) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				kills++
			}
		}
	}
	running.Wait()
	t.Logf("seed %d: %d kills, %d operations, longest %v", seed, kills, l.done.Load(), time.Duration(l.longest.Load()).Round(time.Millisecond))
	if kills < 5 || l.done.Load() < 200 {
		t.Errorf("that was no test")
	}
}

// load is what applications do, with a check after each step.
type load struct {
	t       *testing.T
	dir     string
	v       *volume
	done    atomic.Int64
	longest atomic.Int64
}

// step runs one operation and measures it.
func (l *load) step(what string, f func() error) error {
	start := time.Now()
	err := f()
	l.done.Add(1)
	for took := int64(time.Since(start)); ; {
		was := l.longest.Load()
		if took <= was || l.longest.CompareAndSwap(was, took) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// overwrite writes anywhere in one open file, with and without fsync, and reads
// all of it back.
func (l *load) overwrite(ctx context.Context, rng *rand.Rand) error {
	f, err := os.OpenFile(filepath.Join(l.dir, "overwrite"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	model := make([]byte, 3<<20)
	if err := l.step("truncate", func() error { return f.Truncate(int64(len(model))) }); err != nil {
		return err
	}
	for ctx.Err() == nil {
		off := rng.IntN(len(model))
		data := noise(rng, 1+rng.IntN(min(100_000, len(model)-off)))
		if err := l.step("write", func() error { _, err := f.WriteAt(data, int64(off)); return err }); err != nil {
			return err
		}
		copy(model[off:], data)
		if rng.IntN(5) == 0 {
			if err := l.step("fsync", f.Sync); err != nil {
				return err
			}
		}
		if rng.IntN(5) == 0 {
			got := make([]byte, len(model))
			if err := l.step("read back", func() error { _, err := f.ReadAt(got, 0); return err }); err != nil {
				return err
			}
			if !bytes.Equal(got, model) {
				return errors.New("overwrite: the file differs from what was written")
			}
		}
	}
	return l.step("close", f.Close)
}

// names makes, renames, links and removes names, none of which anybody else
// touches: every call succeeds exactly once.
func (l *load) names(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		dir := filepath.Join(l.dir, fmt.Sprintf("names-%d", i))
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		data := noise(rng, 1+rng.IntN(20_000))
		for _, s := range []struct {
			what string
			run  func() error
		}{
			{"mkdir", func() error { return os.Mkdir(dir, 0o700) }},
			{"create", func() error {
				f, err := os.OpenFile(a, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				_, err = f.Write(data)
				return errors.Join(err, f.Close())
			}},
			{"link", func() error { return os.Link(a, b) }},
			{"unlink", func() error { return os.Remove(a) }},
			{"rename", func() error { return os.Rename(b, a) }},
			{"symlink", func() error { return os.Symlink("a", b) }},
			{"read", func() error {
				got, err := os.ReadFile(b)
				if err == nil && !bytes.Equal(got, data) {
					err = errors.New("another content")
				}
				return err
			}},
			{"chmod", func() error { return os.Chmod(a, 0o640) }},
			{"remove", func() error { return errors.Join(os.Remove(a), os.Remove(b), os.Remove(dir)) }},
		} {
			if err := l.step(s.what, s.run); err != nil {
				return fmt.Errorf("round %d: %w", i, err)
			}
		}
	}
	return nil
}

// read reads one file from end to end, with one handle and with new ones.
func (l *load) read(ctx context.Context, rng *rand.Rand) error {
	path, data := filepath.Join(l.dir, "read"), noise(rng, 10<<20)
	if err := l.step("write a large file", func() error { return os.WriteFile(path, data, 0o600) }); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for ctx.Err() == nil {
		if err := l.step("read a large file", func() error {
			got, err := os.ReadFile(path)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("another content")
			}
			return err
		}); err != nil {
			return err
		}
		off := rng.Int64N(int64(len(data)) - 4096)
		if err := l.step("read a block", func() error {
			got := make([]byte, 4096)
			_, err := f.ReadAt(got, off)
			if err == nil && !bytes.Equal(got, data[off:off+4096]) {
				err = errors.New("another content")
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// appendTo appends lines with O_APPEND: each is there once, in order.
func (l *load) appendTo(ctx context.Context, _ *rand.Rand) error {
	path := filepath.Join(l.dir, "append")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var want strings.Builder
	for i := 0; ctx.Err() == nil && i < 20_000; i++ {
		line := fmt.Sprintf("line %d\n", i)
		if err := l.step("append", func() error { _, err := io.WriteString(f, line); return err }); err != nil {
			return err
		}
		want.WriteString(line)
		if i%200 == 0 {
			if err := l.step("fsync", f.Sync); err != nil {
				return err
			}
		}
	}
	if err := l.step("close", f.Close); err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(got) != want.String() {
		return fmt.Errorf("append: %d bytes, want %d", len(got), want.Len())
	}
	return nil
}

// unlinked goes on with files that have no name.
func (l *load) unlinked(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		data := noise(rng, 1+rng.IntN(50_000))
		if err := l.step("a file without a name", func() error {
			f, err := os.OpenFile(filepath.Join(l.dir, fmt.Sprintf("unlinked-%d", i)), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			if _, err := f.Write(data[:len(data)/2]); err != nil {
				return err
			}
			if i%2 == 0 {
				if err := f.Sync(); err != nil {
					return err
				}
			}
			if err := os.Remove(f.Name()); err != nil {
				return err
			}
			if _, err := f.Write(data[len(data)/2:]); err != nil {
				return err
			}
			got := make([]byte, len(data))
			if _, err := f.ReadAt(got, 0); err != nil {
				return err
			}
			if !bytes.Equal(got, data) {
				return errors.New("another content")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// foreign writes over S3 and waits for it in the mount.
func (l *load) foreign(ctx context.Context, rng *rand.Rand) error {
	client := l.v.client()
	path := filepath.Join(l.dir, "foreign")
	for i := 0; ctx.Err() == nil; i++ {
		data := noise(rng, 1+rng.IntN(100_000))
		if _, err := client.PutObject(context.WithoutCancel(ctx), &s3.PutObjectInput{Bucket: &l.v.Bucket, Key: aws.String("foreign"), Body: bytes.NewReader(data)}); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		if err := poll(context.WithoutCancel(ctx), 30*time.Second, func() error {
			got, err := os.ReadFile(path)
			if err == nil && !bytes.Equal(got, data) {
				err = fmt.Errorf("object %d is not there yet", i)
			}
			return err
		}); err != nil {
			return fmt.Errorf("foreign: %w", err)
		}
		l.done.Add(1)
	}
	return nil
}
