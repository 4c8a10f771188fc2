package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
)

const smallFiles = 2000

func (w *work) small(i int) string { return w.path("small/%d", i) }

// smallContent is a page that no other file has.
func (w *work) smallContent(i int) []byte {
	b := bytes.Clone(w.material.base[i%256*page:][:page])
	head(b, i, i%256)
	return b
}

func removeSmallBefore(ctx context.Context, w *work) error {
	if _, err := os.Stat(w.path("small")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_, err := removeSmall(ctx, w)
	return err
}

func haveSmall(ctx context.Context, w *work) error {
	if _, err := os.Stat(w.small(smallFiles - 1)); err == nil {
		return nil
	}
	_, err := makeSmall(ctx, w)
	return err
}

// makeSmall makes files of 4 KiB, one after the other.
func makeSmall(ctx context.Context, w *work) (float64, error) {
	return timed(func() error {
		if err := os.Mkdir(w.path("small"), 0o755); err != nil {
			return err
		}
		for i := range smallFiles {
			if err := os.WriteFile(w.small(i), w.smallContent(i), 0o644); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	})
}

// readSmall reads them all.
func readSmall(ctx context.Context, w *work) (float64, error) {
	return timed(func() error {
		for i := range smallFiles {
			got, err := os.ReadFile(w.small(i))
			if err != nil {
				return err
			}
			if !bytes.Equal(got, w.smallContent(i)) {
				return fmt.Errorf("%s is not what was written", w.small(i))
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		return nil
	})
}

// removeSmall removes them and their folder.
func removeSmall(_ context.Context, w *work) (float64, error) {
	return timed(func() error { return os.RemoveAll(w.path("small")) })
}
