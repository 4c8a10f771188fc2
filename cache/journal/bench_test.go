package journal

import (
	"fmt"
	"testing"
)

// BenchmarkReplay of 64 MiB, at which fuse compacts: what a take-over waits for.
func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{60, 4096, 128 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := b.TempDir()
			l, err := Open(dir, func([]byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			record := make([]byte, size)
			for l.Size() < 64<<20 {
				if err := l.Append(record); err != nil {
					b.Fatal(err)
				}
			}
			_ = l.Close()
			b.SetBytes(64 << 20)
			b.ReportAllocs()
			for b.Loop() {
				l, err := Open(dir, func([]byte) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				_ = l.Close()
			}
		})
	}
}

// BenchmarkAppend, with a compaction of nothing now and then, so that the file
// stays as short as it is in use.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{60, 4096, 128 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := Open(b.TempDir(), func([]byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			record := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Append(record); err != nil {
					b.Fatal(err)
				}
				if l.Size() > 64<<20 {
					b.StopTimer()
					if err := l.Compact(func(func([]byte) error) error { return nil }); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
			_ = l.Close()
		})
	}
}
