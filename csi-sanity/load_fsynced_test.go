package csisanity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// fsynced writes files and notes what was flushed when fsync or close returned:
// that must be in the cluster whatever dies.
func (l *load) fsynced(ctx context.Context, rng *rand.Rand) error {
	const files = 300 // they stay, so there is an end
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("fsynced-%d", i%files)
		size := 1 + rng.IntN(20_000)
		if rng.IntN(10) == 0 {
			size = 1 + rng.IntN(3<<20)
		}
		data := noise(rng, size)
		path := filepath.Join(l.dir, name)
		var f *os.File
		if err := l.step("open "+name, func() (err error) {
			f, err = os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
			return err
		}); err != nil {
			return err
		}
		for at := 0; at < size; {
			piece := min(size-at, 1+rng.IntN(200_000))
			if err := l.step(fmt.Sprintf("write %d at %d of %s", piece, at, name), func() error { _, err := f.WriteAt(data[at:at+piece], int64(at)); return err }); err != nil {
				return err
			}
			at += piece
			if rng.IntN(3) == 0 {
				if err := l.step("fsync "+name, f.Sync); err != nil {
					return err
				}
			}
		}
		if err := l.step("close "+name, f.Close); err != nil {
			return err
		}
		l.keep(name, data)
		if rng.IntN(3) == 0 {
			if err := l.step("read "+name, func() error { return holds(path, data) }); err != nil {
				return err
			}
		}
	}
	return nil
}
