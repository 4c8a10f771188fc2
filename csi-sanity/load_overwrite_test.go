package csisanity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// overwrite writes anywhere in one open file, with and without fsync, truncates it,
// and reads all of it back.
func (l *load) overwrite(ctx context.Context, rng *rand.Rand) error {
	const name = "overwrite"
	f, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	const most = 3 << 20
	model := make([]byte, most)
	truncate := func() error {
		return l.step(fmt.Sprintf("truncate to %d", len(model)), func() error { return f.Truncate(int64(len(model))) })
	}
	if err := truncate(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		off := rng.IntN(len(model))
		data := noise(rng, 1+rng.IntN(min(100_000, most-off)))
		if err := l.step(fmt.Sprintf("write %d at %d", len(data), off), func() error { _, err := f.WriteAt(data, int64(off)); return err }); err != nil {
			return err
		}
		if end := off + len(data); end > len(model) {
			model = append(model, make([]byte, end-len(model))...)
		}
		copy(model[off:], data)
		if rng.IntN(30) == 0 { // down, so that what grows again must be zeros
			cut := 1 + rng.IntN(len(model))
			model = append([]byte(nil), model[:cut]...)
			if err := truncate(); err != nil {
				return err
			}
			if rng.IntN(2) == 0 {
				model = append(model, make([]byte, most-len(model))...)
				if err := truncate(); err != nil {
					return err
				}
			}
		}
		if rng.IntN(5) == 0 {
			if err := l.step("fsync", f.Sync); err != nil {
				return err
			}
		}
		if rng.IntN(5) == 0 {
			got := make([]byte, len(model))
			if err := l.step("read back", func() error {
				n, err := f.ReadAt(got, 0)
				if n < len(got) {
					return fmt.Errorf("%d bytes of %d: %w", n, len(got), err)
				}
				return differ(got, model)
			}); err != nil {
				return err
			}
		}
	}
	if err := l.step("close", f.Close); err != nil {
		return err
	}
	l.keep(name, model)
	return nil
}
