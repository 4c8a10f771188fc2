package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// This file keeps the worker small: it shares its node with the applications that
// it serves. Left alone, the collector lets garbage grow to the size of what lives,
// and a stream of large buffers is garbage soon; near the limit it runs more often
// instead. The memory of the slots is not the collector's: about 8 MiB when idle
// (fuse/session), and one MiB for each large write in a handler.
//
// A fixed limit was the alternative. A volume with millions of files needs more
// than any, and the collector would then run all the time.

const (
	// memoryLimit and the slots of a stream stay below 200 MiB.
	memoryLimit = 128 << 20
	// memoryRoom is what may be garbage beside what lives, as a divisor of it, once
	// that outgrows the limit.
	memoryRoom = 2
	// memoryEvery is how often that is looked at; what lives is a table, which
	// grows slowly.
	memoryEvery = time.Second
)

// keepSmall sets the limit for this process until ctx ends. $GOMEMLIMIT overrides
// it.
func keepSmall(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(memoryLimit)
	go func() {
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		was := int64(memoryLimit)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			metrics.Read(sample)
			if sample[0].Value.Kind() != metrics.KindUint64 {
				return
			}
			if limit := limitFor(int64(sample[0].Value.Uint64())); limit != was {
				debug.SetMemoryLimit(limit)
				was = limit
			}
		}
	}()
}

// limitFor returns the limit for so many bytes that live.
func limitFor(live int64) int64 {
	const step = 16 << 20 // not for every byte
	return max(memoryLimit, (live+live/memoryRoom+step-1)/step*step)
}
