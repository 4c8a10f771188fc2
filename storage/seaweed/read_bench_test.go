package seaweed_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
)

// BenchmarkChunks measures what is asked of a real volume server: 4 KiB at random
// places of one chunk, one after the other and from sixteen goroutines, 4 KiB
// written, whole chunks read and written, and freed. Each in a closed cluster,
// over TLS, and in an open one.
func BenchmarkChunks(b *testing.B) {
	open := clustertest.Start(b, func(o *cluster.Options) { o.PKI = "" })
	for name, of := range map[string]*cluster.Cluster{"closed": weed, "open": open} {
		b.Run(name, func(b *testing.B) { benchChunks(b, of) })
	}
}

func benchChunks(b *testing.B, of *cluster.Cluster) {
	s3, err := s3client.New(s3client.Options{Endpoint: of.Endpoints().S3URL, Keys: of.AdminKeys()})
	if err != nil {
		b.Fatal(err)
	}
	if err := s3.CreateBucket(b.Context(), "bench"); err != nil {
		b.Fatal(err)
	}
	v := openCluster(b, of).Volume("bench", "bench")
	data := make([]byte, 4<<20-64<<10)
	for i := range data {
		data[i] = byte(rand.IntN(256))
	}
	// Not a benchmark's own context: that ends with each run of it.
	ctx := context.WithoutCancel(b.Context())
	write := func(b *testing.B, n int) storage.ChunkID {
		c, err := v.Chunks.Write(ctx, "f", data[:n])
		if err != nil {
			b.Fatal(err)
		}
		return c.ID
	}
	ch := storage.Chunk{ID: write(b, len(data)), Size: int64(len(data))}
	read := func(b *testing.B, buf []byte) {
		off := int64(0)
		if room := int64(len(data)-len(buf)) / 4096; room > 0 {
			off = rand.Int64N(room) * 4096
		}
		if err := v.Chunks.Read(ctx, ch, buf, off); err != nil || !bytes.Equal(buf, data[off:off+int64(len(buf))]) {
			b.Error("read", off, err)
		}
	}
	many := func(size int) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, size)
				for pb.Next() {
					read(b, buf)
				}
			})
		}
	}
	one := func(size int, do func(b *testing.B, buf []byte)) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			buf := make([]byte, size)
			for b.Loop() {
				do(b, buf)
			}
		}
	}
	b.Run("read4K", one(4096, read))
	b.Run("read4Kx16", many(4096))
	b.Run("read4M", one(len(data), read))
	b.Run("write4K", one(4096, func(b *testing.B, _ []byte) { write(b, 4096) }))
	b.Run("write4M", one(len(data), func(b *testing.B, _ []byte) { write(b, len(data)) }))
	b.Run("free256", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			var ids []storage.ChunkID
			for range 256 {
				ids = append(ids, write(b, 64<<10))
			}
			b.StartTimer()
			if err := v.Chunks.Delete(ctx, ids); err != nil {
				b.Fatal(err)
			}
		}
	})
}
