package seaweed_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// BenchmarkRead4K reads 4 KiB at random places of one chunk from a real volume
// server, one after the other and from sixteen goroutines.
func BenchmarkRead4K(b *testing.B) {
	s3, err := s3client.New(s3client.Options{Endpoint: weed.Endpoints().S3URL, Keys: weed.AdminKeys()})
	if err != nil {
		b.Fatal(err)
	}
	if err := s3.CreateBucket(b.Context(), "bench"); err != nil {
		b.Fatal(err)
	}
	c, err := seaweed.Open(b.Context(), seaweed.Options{Filer: weed.Endpoints().FilerGRPC})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v := c.Volume("bench", "bench")
	data := make([]byte, 4<<20-64<<10)
	for i := range data {
		data[i] = byte(rand.IntN(256))
	}
	ch, err := v.Chunks.Write(b.Context(), "f", data)
	if err != nil {
		b.Fatal(err)
	}
	read := func(b *testing.B, buf []byte) {
		off := rand.Int64N(int64(len(data)-len(buf))/4096) * 4096
		if err := v.Chunks.Read(b.Context(), ch, buf, off); err != nil || !bytes.Equal(buf, data[off:off+int64(len(buf))]) {
			b.Error("read", off, err)
		}
	}
	b.Run("q1", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 4096)
		for b.Loop() {
			read(b, buf)
		}
	})
	b.Run("q16", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			buf := make([]byte, 4096)
			for pb.Next() {
				read(b, buf)
			}
		})
	})
	b.Run("write4K", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Chunks.Write(b.Context(), "f", data[:4096]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
