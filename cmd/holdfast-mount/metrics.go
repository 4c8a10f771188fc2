package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/holdfast-csi/holdfast/cache"
	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/cmd/internal/metrics"
	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/storage"
)

// This file is what the mounter tells Prometheus. The parent opens the port and each
// worker inherits it, so that nobody else can take it meanwhile, a scrape that comes
// between two workers waits for the next one, and a dead worker that lingers in the
// kernel keeps it from nobody.

// metricsFD is the descriptor of the port in a worker.
const metricsFD = lifeline + 1

// counted is what a worker counts; nil counts nothing.
type counted struct {
	set      *metrics.Set
	port     net.Listener
	requests session.Counters
	// uploads and commits note how long one took.
	uploads, commits func(took time.Duration, labels ...string)
	uploaded         atomic.Uint64
}

// openPort opens it, in the parent.
func openPort(ctx context.Context, address string) (*os.File, error) {
	l, err := metrics.Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("--metrics-address %q: %w", address, err)
	}
	return f, nil
}

// openCounted takes the port that the parent has opened. number is how many workers that
// has started, this one among them.
func openCounted(number int64) (*counted, error) {
	f := os.NewFile(metricsFD, "metrics")
	port, err := net.FileListener(f)
	_ = f.Close() // the listener has its own
	if err != nil {
		return nil, fmt.Errorf("the port for metrics: %w", err)
	}
	c := &counted{set: metrics.New(metrics.Mounter, version), port: port}
	c.uploads = c.set.Histogram(metrics.Upload, metrics.Calls, metrics.Results()...)
	c.commits = c.set.Histogram(metrics.Commit, metrics.Calls, metrics.Results()...)
	c.set.Collect(func(tell *metrics.Tell) {
		tell.Value(metrics.Workers, float64(number))
		tell.Value(metrics.UploadBytes, float64(c.uploaded.Load()))
		for _, n := range c.requests.Counts() {
			tell.Histogram(metrics.FUSERequest, session.Bounds[:], n.Within[:], n.All, n.Took, n.Op)
			tell.Value(metrics.FUSEErrors, float64(n.IOErrors), n.Op)
		}
	})
	return c, nil
}

// serve tells until ctx ends.
func (c *counted) serve(ctx context.Context, log *slog.Logger) {
	if err := c.set.Serve(ctx, c.port, nil, log); err != nil {
		log.Error("metrics are told no more", "err", err)
	}
}

func (c *counted) collectCache(chunks *cache.Cache) {
	c.set.Collect(func(tell *metrics.Tell) {
		s := chunks.Stats()
		for name, n := range map[string]uint64{
			metrics.CacheHits: s.Hits, metrics.CacheMisses: s.Misses, metrics.CacheFetches: s.Fetches, metrics.CacheAhead: s.ReadAhead,
			metrics.CacheBad: s.Bad, metrics.CacheEvictions: s.Evictions, metrics.CacheRefused: s.Refused, metrics.CacheFailures: s.Failures,
		} {
			tell.Value(name, float64(n))
		}
		tell.Value(metrics.CacheBytes, float64(s.Bytes))
		tell.Value(metrics.CacheLimit, float64(s.Limit))
		tell.Bool(metrics.CacheDisk, s.Disk)
	})
}

// collectSessions tells of what the server has. What cannot be learned is left out.
func (c *counted) collectSessions(s *server) {
	c.set.Collect(func(tell *metrics.Tell) {
		origin := map[string]int{"new": 0, "taken_over": 0}
		for id, sv := range s.all() {
			if sv.taken {
				origin["taken_over"]++
			} else {
				origin["new"]++
			}
			tell.Value(metrics.VolumeRead, float64(sv.traffic.Read.Load()), id)
			tell.Value(metrics.VolumeWritten, float64(sv.traffic.Written.Load()), id)
			v, ok := sv.fs.(retiring)
			if !ok {
				continue
			}
			tell.Bool(metrics.Stream, v.watched.Load(), id)
			behind, _ := v.Behind()
			tell.Value(metrics.Behind, behind.Seconds(), id)
			if n, err := journal.SizeIn(v.dir); err == nil {
				tell.Value(metrics.Journal, float64(n), id)
			}
			if n, err := v.Leftovers(); err == nil {
				tell.Value(metrics.Leftovers, float64(n), id)
			}
		}
		for of, n := range origin {
			tell.Value(metrics.Sessions, float64(n), of)
		}
	})
}

// options of a session that is counted.
func (c *counted) options(o session.Options, t *session.Traffic) session.Options {
	if c != nil {
		o.Counters, o.Traffic = &c.requests, t
	}
	return o
}

// coat puts the counting coats around a volume's store, below its cache.
func (c *counted) coat(vol storage.Volume) storage.Volume {
	if c != nil {
		vol.Chunks, vol.Files = countedChunks{vol.Chunks, c}, countedFiles{vol.Files, c}
	}
	return vol
}

type countedChunks struct {
	storage.Chunks
	c *counted
}

// Write implements storage.Chunks.
func (k countedChunks) Write(ctx context.Context, near storage.Path, data []byte) (storage.Chunk, error) {
	began := time.Now()
	chunk, err := k.Chunks.Write(ctx, near, data)
	k.c.uploads(time.Since(began), metrics.Result(err))
	if err == nil {
		k.c.uploaded.Add(uint64(len(data)))
	}
	return chunk, err
}

type countedFiles struct {
	storage.Files
	c *counted
}

// Update implements storage.Files.
func (k countedFiles) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	began := time.Now()
	now, err := k.Files.Update(ctx, p, e)
	k.c.commits(time.Since(began), metrics.Result(err))
	return now, err
}
