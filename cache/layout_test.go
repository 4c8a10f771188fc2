package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// This file holds the layout that lost, one file per block, for the comparison of
// FORMAT.md: go test -bench Layout ./cache.

type perFile struct{ dir string }

func newPerFile(b *testing.B) *perFile {
	p := &perFile{b.TempDir()}
	for i := range 256 {
		if err := os.Mkdir(filepath.Join(p.dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	return p
}

func (p *perFile) path(k key) string {
	name := hex.EncodeToString(k[:])
	return p.dir + "/" + name[:2] + "/" + name[2:]
}

func (p *perFile) insert(k key, data []byte) bool {
	path := p.path(k)
	fd, err := unix.Open(path+".new", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	_, err = unix.Pwritev(fd, encode(k, data), 0)
	return errors.Join(err, unix.Close(fd), unix.Rename(path+".new", path)) == nil
}

func (p *perFile) read(k key, b []byte, off int) bool {
	fd, err := unix.Open(p.path(k), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	s := slab{blocks: fdFile{fd: fd}}
	return s.readUnits(0, k, BlockSize, b, off)
}

func (p *perFile) evict(k key) { _ = unix.Unlink(p.path(k)) }

// start finds the blocks and their sizes.
func (p *perFile) start() (n int) {
	_ = filepath.WalkDir(p.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if _, err := d.Info(); err == nil {
				n++
			}
		}
		return nil
	})
	return n
}

type fdFile struct {
	file
	fd int
}

func (f fdFile) readv(b [][]byte, off int64) (int, error) { return unix.Preadv(f.fd, b, off) }

func newBenchSlab(b *testing.B, limit int64) *slab {
	f, err := openFolder(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := openSlab(f, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.close(context.WithoutCancel(b.Context())) })
	return s
}

// BenchmarkLayout: a block is written in place of an older one, and read.
func BenchmarkLayout(b *testing.B) {
	const live = 64
	for _, size := range []int{4000, BlockSize} {
		data := make([]byte, size)
		b.Run(fmt.Sprintf("replace/%d/file", size), func(b *testing.B) {
			p, i := newPerFile(b), 0
			b.SetBytes(int64(size))
			for b.Loop() {
				if i >= live {
					p.evict(benchKey(i - live))
				}
				if !p.insert(benchKey(i), data) {
					b.Fatal("insert")
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("replace/%d/slab", size), func(b *testing.B) {
			s, i := newBenchSlab(b, live*BlockSize), 0
			s.limit = live * int64(pagesOf(size))
			b.SetBytes(int64(size))
			for b.Loop() {
				if !s.insert(benchKey(i), data, nil) {
					b.Fatal("insert")
				}
				i++
			}
		})
	}
	data := make([]byte, BlockSize)
	p, s := newPerFile(b), newBenchSlab(b, 2*live*BlockSize)
	for i := range live {
		if !p.insert(benchKey(i), data) || !s.insert(benchKey(i), data, nil) {
			b.Fatal("insert")
		}
	}
	for _, size := range []int{4096, BlockSize} {
		for name, read := range map[string]func(key, []byte, int) bool{"file": p.read, "slab": s.read} {
			b.Run(fmt.Sprintf("read/%d/%s", size, name), func(b *testing.B) {
				buf, i := make([]byte, size), 0
				b.SetBytes(int64(size))
				for b.Loop() {
					if i++; !read(benchKey(i%live), buf, i*40960%(BlockSize-size+1)) {
						b.Fatal("read")
					}
				}
			})
		}
	}
}

// BenchmarkStart with 100,000 blocks of one page, in files; BenchmarkOpen is its
// counterpart.
func BenchmarkStart(b *testing.B) {
	p := newPerFile(b)
	data := make([]byte, 4000)
	for i := range 100_000 {
		if !p.insert(benchKey(i), data) {
			b.Fatal("insert")
		}
	}
	for b.Loop() {
		if p.start() != 100_000 {
			b.Fatal("start")
		}
	}
}
