package csisanity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// unlinked goes on with files that have no name.
func (l *load) unlinked(ctx context.Context, rng *rand.Rand) error {
	return l.nameless(ctx, rng, "unlinked", os.Remove, gone)
}

// renamedOver goes on with files whose name was given to another one.
func (l *load) renamedOver(ctx context.Context, rng *rand.Rand) error {
	other := []byte("other")
	return l.nameless(ctx, rng, "renamed-over", func(path string) error {
		if err := create(path+"-other", other); err != nil {
			return err
		}
		return os.Rename(path+"-other", path)
	}, func(path string) error {
		if err := holds(path, other); err != nil {
			return err
		}
		return os.Remove(path)
	})
}

// nameless writes before and after a file has lost its name.
func (l *load) nameless(ctx context.Context, rng *rand.Rand, name string, lose, after func(path string) error) error {
	for i := 0; ctx.Err() == nil; i++ {
		data := noise(rng, 2+rng.IntN(50_000))
		path := filepath.Join(l.dir, fmt.Sprintf("%s-%d", name, i))
		if err := l.namelessOnce(path, data, i%2 == 0, lose, after); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func (l *load) namelessOnce(path string, data []byte, flush bool, lose, after func(path string) error) error {
	var f *os.File
	err := l.step("create", func() (err error) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	half := len(data) / 2
	steps := []struct {
		what string
		run  func() error
	}{
		{"write before", func() error { _, err := f.Write(data[:half]); return err }},
		{"fsync before", func() error {
			if !flush {
				return nil
			}
			return f.Sync()
		}},
		{"lose the name", func() error { return lose(path) }},
		{"write after", func() error { _, err := f.Write(data[half:]); return err }},
		{"fsync after", f.Sync},
		{"read without a name", func() error {
			got := make([]byte, len(data))
			if n, err := f.ReadAt(got, 0); n < len(got) {
				return fmt.Errorf("%d bytes of %d: %w", n, len(got), err)
			}
			return differ(got, data)
		}},
		{"close", f.Close},
		{"what is there now", func() error { return after(path) }},
	}
	for _, s := range steps {
		if err := l.step(s.what, s.run); err != nil {
			return err
		}
	}
	return nil
}
