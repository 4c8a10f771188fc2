package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// randomSpan is how long random reads go on.
const randomSpan = 2 * time.Second

const largeFile = 1 << 30 // its number, apart from those of the small ones

func (w *work) large() string { return w.path("large") }

func removeLarge(_ context.Context, w *work) error {
	err := os.Remove(w.large())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func haveLarge(ctx context.Context, w *work) error {
	info, err := os.Stat(w.large())
	if err == nil && info.Size() == int64(w.material.sizeMiB)*mib {
		return nil
	}
	_, err = writeLarge(ctx, w)
	return err
}

// writeLarge writes a file from start to end, with fsync and close.
func writeLarge(ctx context.Context, w *work) (float64, error) {
	took, err := timed(func() error {
		f, err := os.Create(w.large())
		if err != nil {
			return err
		}
		b := make([]byte, mib)
		for n := 0; n < w.material.sizeMiB && err == nil; n++ {
			w.material.fill(b, largeFile, n)
			if _, err = f.Write(b); err == nil {
				err = ctx.Err()
			}
		}
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
	return float64(w.material.sizeMiB) / took, err
}

// readLarge reads it from start to end and compares every page.
func readLarge(ctx context.Context, w *work) (float64, error) {
	took, err := timed(func() error {
		f, err := os.Open(w.large())
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, mib)
		for n := range w.material.sizeMiB {
			for at := 0; at < mib; {
				got, err := f.Read(b[at:])
				if err != nil {
					return fmt.Errorf("read at %d: %w", n*mib+at, err)
				}
				at += got
			}
			for at := 0; at < mib; at += page {
				if err := w.material.same(b[at:at+page], largeFile, (n*mib+at)/page); err != nil {
					return err
				}
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	})
	return float64(w.material.sizeMiB) / took, err
}

// readRandom reads pages anywhere, each at most once, by so many threads.
func readRandom(threads int) func(ctx context.Context, w *work) (float64, error) {
	return func(ctx context.Context, w *work) (float64, error) {
		f, err := os.Open(w.large())
		if err != nil {
			return 0, err
		}
		defer f.Close()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
			return 0, fmt.Errorf("fadvise: %w", err)
		}
		pages := rand.New(rand.NewPCG(uint64(w.round), uint64(threads))).Perm(w.material.sizeMiB * (mib / page))
		var next atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, threads)
		start := time.Now()
		for t := range threads {
			wg.Go(func() {
				b := make([]byte, page)
				for time.Since(start) < randomSpan && ctx.Err() == nil {
					i := next.Add(1) - 1
					if int(i) >= len(pages) {
						return
					}
					if _, err := f.ReadAt(b, int64(pages[i])*page); err != nil {
						errs[t] = err
						return
					}
					if errs[t] = w.material.same(b, largeFile, pages[i]); errs[t] != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(start).Seconds()
		return float64(min(int(next.Load()), len(pages))) / took, errors.Join(errs...)
	}
}
