package csisanity

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// appendTo appends lines with O_APPEND, by two handles in turn: each line is there
// once, in order.
func (l *load) appendTo(ctx context.Context, rng *rand.Rand) error {
	const name = "append"
	path := filepath.Join(l.dir, name)
	var handles [2]*os.File
	for i := range handles {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		handles[i] = f
	}
	var want strings.Builder
	for i := 0; ctx.Err() == nil && i < 100_000; i++ {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", rng.IntN(60)))
		f := handles[rng.IntN(len(handles))]
		if err := l.step(fmt.Sprintf("append line %d", i), func() error { _, err := io.WriteString(f, line); return err }); err != nil {
			return err
		}
		want.WriteString(line)
		if i%200 == 0 {
			if err := l.step("fsync", f.Sync); err != nil {
				return err
			}
		}
	}
	for _, f := range handles {
		if err := l.step("close", f.Close); err != nil {
			return err
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	l.keep(name, []byte(want.String()))
	return differ(got, []byte(want.String()))
}
