// load is an application that notices everything: it keeps files in a folder,
// changes them, and compares each with what it has written itself. The first
// error, of the kernel or of the content, ends it with a message and exit
// status 1; a wait is no error, and the longest one is told.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Progress is what the load prints, a JSON object a line.
type Progress struct {
	// Rounds are those done, Longest is the longest operation since the last line.
	Rounds  int     `json:"rounds"`
	Longest float64 `json:"longestSeconds"`
}

func main() {
	dir := flag.String("dir", "/data", "folder that the load has for itself; it is made")
	files := flag.Int("files", 20, "how many files it keeps")
	size := flag.Int("size", 64<<10, "bytes of a file, at most")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l := &load{dir: *dir, size: *size, content: make([][]byte, *files), out: json.NewEncoder(os.Stdout)}
	if err := l.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

type load struct {
	dir     string
	size    int
	content [][]byte // of file i, or nil where there is none
	longest time.Duration
	out     *json.Encoder
}

func (l *load) run(ctx context.Context) error {
	if err := os.Mkdir(l.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	told := time.Now()
	for round := 1; ctx.Err() == nil; round++ {
		i := rand.IntN(len(l.content))
		var err error
		switch operation := rand.IntN(10); {
		case l.content[i] == nil || operation < 4:
			err = l.timed(func() error { return l.replace(i) })
		case operation < 6:
			err = l.timed(func() error { return l.appendTo(i) })
		case operation < 7:
			err = l.timed(func() error { return l.remove(i) })
		default:
			err = l.timed(func() error { return l.compare(i) })
		}
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if now := time.Now(); now.Sub(told) > time.Second {
			if err := l.out.Encode(Progress{Rounds: round, Longest: l.longest.Seconds()}); err != nil {
				return err
			}
			told, l.longest = now, 0
		}
	}
	for i := range l.content {
		if l.content[i] != nil {
			if err := l.compare(i); err != nil {
				return fmt.Errorf("at the end: %w", err)
			}
		}
	}
	return nil
}

func (l *load) timed(operation func() error) error {
	start := time.Now()
	err := operation()
	l.longest = max(l.longest, time.Since(start))
	return err
}

func (l *load) name(i int) string { return filepath.Join(l.dir, fmt.Sprintf("file-%03d", i)) }

// replace writes a new file, makes it durable, and renames it over the old one.
func (l *load) replace(i int) error {
	content := random(1 + rand.IntN(l.size))
	next := l.name(i) + ".next"
	if err := write(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, content); err != nil {
		return err
	}
	if err := os.Rename(next, l.name(i)); err != nil {
		return err
	}
	l.content[i] = content
	return nil
}

func (l *load) appendTo(i int) error {
	if len(l.content[i]) > l.size {
		return l.replace(i)
	}
	more := random(1 + rand.IntN(4096))
	if err := write(l.name(i), os.O_APPEND|os.O_WRONLY, more); err != nil {
		return err
	}
	l.content[i] = append(l.content[i], more...)
	return nil
}

func (l *load) remove(i int) error {
	if err := os.Remove(l.name(i)); err != nil {
		return err
	}
	l.content[i] = nil
	if _, err := os.Stat(l.name(i)); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s was removed, and stat says: %w", l.name(i), err)
	}
	return nil
}

func (l *load) compare(i int) error {
	file, err := os.Open(l.name(i))
	if err != nil {
		return err
	}
	defer file.Close()
	got, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, l.content[i]) {
		return fmt.Errorf("%s: %d bytes that are not the %d that were written", l.name(i), len(got), len(l.content[i]))
	}
	return nil
}

func write(name string, flags int, content []byte) error {
	file, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

func random(n int) []byte {
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	return content
}
