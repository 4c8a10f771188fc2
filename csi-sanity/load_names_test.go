package csisanity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// names makes, renames, links and removes names, none of which anybody else
// touches: every call succeeds exactly once.
func (l *load) names(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		dir := filepath.Join(l.dir, fmt.Sprintf("names-%d", i))
		a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
		data, other := noise(rng, 1+rng.IntN(20_000)), noise(rng, 1+rng.IntN(2_000))
		for _, s := range []struct {
			what string
			run  func() error
		}{
			{"mkdir", func() error { return os.Mkdir(dir, 0o700) }},
			{"create", func() error { return create(a, data) }},
			{"link", func() error { return os.Link(a, b) }},
			{"count links", func() error { return links(a, 2) }},
			{"unlink", func() error { return os.Remove(a) }},
			{"count links again", func() error { return links(b, 1) }},
			{"rename", func() error { return os.Rename(b, a) }},
			{"symlink", func() error { return os.Symlink("a", b) }},
			{"read through a link", func() error { return holds(b, data) }},
			{"chmod", func() error { return os.Chmod(a, 0o640) }},
			{"create another", func() error { return create(c, other) }},
			{"list", func() error { return lists(dir, "a", "b", "c") }},
			{"rename over", func() error { return os.Rename(c, a) }},
			{"read what was renamed over", func() error { return holds(a, other) }},
			{"list again", func() error { return lists(dir, "a", "b") }},
			{"remove", func() error { return os.Remove(a) }},
			{"remove a link", func() error { return os.Remove(b) }},
			{"rmdir", func() error { return os.Remove(dir) }},
			{"look for what is gone", func() error { return gone(dir) }},
		} {
			if err := l.step(fmt.Sprintf("%s, %s", s.what, filepath.Base(dir)), s.run); err != nil {
				return err
			}
		}
	}
	return nil
}

// create makes a file that must not be there, and closes it.
func create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// holds compares a whole file.
func holds(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return differ(got, want)
}

// lists compares what a folder shows.
func lists(dir string, want ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s shows %q, want %q", dir, got, want)
	}
	return nil
}

func links(path string, want uint64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no stat")
	}
	if got := uint64(st.Nlink); got != want {
		return fmt.Errorf("%s has %d links, want %d", path, got, want)
	}
	return nil
}

// gone wants that nothing is there.
func gone(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: want that it is not there, got %w", path, err)
	}
	return nil
}
