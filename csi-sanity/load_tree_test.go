package csisanity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// movedFolders moves folders while a file below them is open and written to: the
// bytes are in the file, wherever it is now.
func (l *load) movedFolders(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		if err := l.movedFolder(fmt.Sprintf("tree-%d", i), rng); err != nil {
			return fmt.Errorf("tree-%d: %w", i, err)
		}
	}
	return nil
}

func (l *load) movedFolder(name string, rng *rand.Rand) error {
	top := filepath.Join(l.dir, name)
	a, b := filepath.Join(top, "a"), filepath.Join(top, "b")
	if err := l.step("mkdir", func() error { return os.MkdirAll(filepath.Join(a, "sub"), 0o700) }); err != nil {
		return err
	}
	neighbours := map[string][]byte{}
	for j := range rng.IntN(4) {
		n := fmt.Sprintf("n%d", j)
		neighbours[n] = noise(rng, 1+rng.IntN(9000))
		if err := l.step("create "+n, func() error { return create(filepath.Join(a, n), neighbours[n]) }); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(a, "sub", "open"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()

	// One writes and flushes, the other moves. All of it is drawn before.
	var pieces [][]byte
	var flush []bool
	for range 3 + rng.IntN(6) {
		pieces, flush = append(pieces, noise(rng, 1+rng.IntN(12_000))), append(flush, rng.IntN(2) == 0)
	}
	moves := 1 + rng.IntN(4)
	var written []byte
	var writeErr error
	var writer sync.WaitGroup
	writer.Go(func() {
		for i, p := range pieces {
			if writeErr = l.step(fmt.Sprintf("write %d below a folder that moves", len(p)), func() error { _, err := f.Write(p); return err }); writeErr != nil {
				return
			}
			written = append(written, p...)
			if flush[i] {
				if writeErr = l.step("fsync below a folder that moves", f.Sync); writeErr != nil {
					return
				}
			}
		}
	})
	from, to := a, b
	var moveErr error
	for range moves {
		if moveErr = l.step(fmt.Sprintf("rename a folder to %s", filepath.Base(to)), func() error { return os.Rename(from, to) }); moveErr != nil {
			break
		}
		from, to = to, from
	}
	writer.Wait()
	if err := errors.Join(moveErr, writeErr); err != nil {
		return err
	}
	read := func() error { return holds(filepath.Join(from, "sub", "open"), written) }
	steps := []struct {
		what string
		run  func() error
	}{
		{"read what is open, by its new path", read},
		{"close", f.Close},
		{"read what is closed, by its new path", read},
		{"look for the old path", func() error { return gone(to) }},
	}
	for n, data := range neighbours {
		steps = append(steps, struct {
			what string
			run  func() error
		}{"read the neighbour " + n, func() error { return holds(filepath.Join(from, n), data) }})
	}
	for _, s := range steps {
		if err := l.step(s.what, s.run); err != nil {
			return err
		}
	}
	if rng.IntN(5) == 0 {
		l.keep(filepath.Join(name, filepath.Base(from), "sub", "open"), written)
		for n, data := range neighbours {
			l.keep(filepath.Join(name, filepath.Base(from), n), data)
		}
		return nil
	}
	if err := l.step("remove the tree", func() error { return os.RemoveAll(top) }); err != nil {
		return err
	}
	return l.step("look for the tree", func() error { return gone(top) })
}

// removal removes folders under those who write and read in them. What is open goes
// on; what is gone stays gone.
func (l *load) removal(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		dir := filepath.Join(l.dir, fmt.Sprintf("removal-%d", i))
		if err := l.step("mkdir", func() error { return os.Mkdir(dir, 0o700) }); err != nil {
			return err
		}
		if err := l.removalOnce(dir, rng); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return nil
}

func (l *load) removalOnce(dir string, rng *rand.Rand) error {
	const files = 20
	var data [files][]byte
	for j := range data {
		data[j] = noise(rng, 1+rng.IntN(8000))
	}
	after := rng.IntN(files)
	path := func(j int) string { return filepath.Join(dir, fmt.Sprint(j)) }
	begun := make(chan struct{})
	var wg sync.WaitGroup
	var makeErr, readErr error
	wg.Go(func() { // makes files until the folder is gone
		defer func() {
			select {
			case <-begun:
			default:
				close(begun)
			}
		}()
		for j := range data {
			if j == after {
				close(begun)
			}
			makeErr = l.step("create in a folder that is being removed", func() error { return create(path(j), data[j]) })
			if errors.Is(makeErr, os.ErrNotExist) {
				makeErr = nil
				return
			}
			if makeErr != nil {
				return
			}
		}
	})
	wg.Go(func() { // reads them: nothing, the first bytes, or all
		for j := range data {
			readErr = l.step("read in a folder that is being removed", func() error {
				got, err := os.ReadFile(path(j))
				if errors.Is(err, os.ErrNotExist) || err == nil && len(got) == 0 {
					return nil
				}
				if err != nil {
					return err
				}
				return differ(got, data[j])
			})
			if readErr != nil {
				return
			}
		}
	})
	<-begun
	removeErr := l.step("remove all", func() error {
		for {
			err := os.RemoveAll(dir)
			if !errors.Is(err, syscall.ENOTEMPTY) { // somebody was faster
				return err
			}
		}
	})
	wg.Wait()
	if err := errors.Join(makeErr, readErr, removeErr); err != nil {
		return err
	}
	return l.step("look for what was removed", func() error {
		return errors.Join(gone(dir), gone(path(0)))
	})
}
