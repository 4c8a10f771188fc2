package csisanity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// read reads one file from end to end with new handles, and blocks anywhere in it
// with one that stays open.
func (l *load) read(ctx context.Context, rng *rand.Rand) error {
	const name = "read"
	path, data := filepath.Join(l.dir, name), noise(rng, 10<<20)
	if err := l.step("write a large file", func() error { return os.WriteFile(path, data, 0o600) }); err != nil {
		return err
	}
	l.keep(name, data)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for ctx.Err() == nil {
		if err := l.step("read a large file", func() error {
			got, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return differ(got, data)
		}); err != nil {
			return err
		}
		for range 10 {
			off := rng.IntN(len(data) - 4096)
			if err := l.step(fmt.Sprintf("read a block at %d", off), func() error {
				got := make([]byte, 4096)
				if _, err := f.ReadAt(got, int64(off)); err != nil {
					return err
				}
				return differ(got, data[off:off+4096])
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
