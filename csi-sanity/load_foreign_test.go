package csisanity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// foreignSeen is how long another's write may take until the mount shows it.
const foreignSeen = 60 * time.Second

// put writes an object, and asks again for a while: the gateway and the filer are
// killed by a test or die by themselves, and what S3 then answers is not ours.
func (l *load) put(ctx context.Context, key string, data []byte) error {
	ctx = context.WithoutCancel(ctx)
	client := l.v.client()
	once := func() error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: &l.v.Bucket, Key: aws.String(key), Body: bytes.NewReader(data)})
		return err
	}
	return l.step(fmt.Sprintf("put %d bytes to %s", len(data), key), func() error {
		return poll(ctx, foreignSeen, func() error {
			err := once()
			if err != nil {
				l.note("put %s: %v", key, err)
			}
			return err
		})
	})
}

// foreign writes over S3, new objects and over old ones, and waits until the mount
// shows it.
func (l *load) foreign(ctx context.Context, rng *rand.Rand) error {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("foreign-%d", i%3)
		data := noise(rng, 1+rng.IntN(100_000))
		if err := l.put(ctx, name, data); err != nil {
			return err
		}
		if err := l.step(fmt.Sprintf("wait for object %d in %s", i, name), func() error {
			return poll(context.WithoutCancel(ctx), foreignSeen, func() error {
				got, err := os.ReadFile(filepath.Join(l.dir, name))
				if err == nil {
					err = differ(got, data)
				}
				return err
			})
		}); err != nil {
			return err
		}
		l.keep(name, data)
	}
	return nil
}

// foreignUnderReaders writes over S3, again and again and as fast as it goes, over
// an object that others read all the time: the kernel is told to forget pages that
// are being filled and names that are being looked up, and a kill must not wait for
// that. Each object is one byte repeated, so a reader knows what it may see.
func (l *load) foreignUnderReaders(ctx context.Context, rng *rand.Rand) error {
	const name, size = "contended", 200_000
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('A' + i%26)}, size) }
	if err := l.put(ctx, name, version(0)); err != nil {
		return err
	}
	path := filepath.Join(l.dir, name)
	if err := l.step("wait for the first "+name, func() error {
		return poll(ctx, foreignSeen, func() error { return holds(path, version(0)) })
	}); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	var failed atomic.Pointer[error]
	for range 2 {
		readers.Go(func() {
			for reading.Err() == nil {
				err := l.step("read "+name, func() error { return whole(path, size) })
				// Replaced while it was open, and its chunks are cleaned up.
				if err != nil && !errors.Is(err, syscall.ESTALE) {
					failed.CompareAndSwap(nil, &err)
					return
				}
			}
		})
	}
	i := 0
	for pause := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; {
		if err := failed.Load(); err != nil {
			return *err
		}
		i++
		if err := l.put(ctx, name, version(i)); err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			<-pause.C
		}
	}
	stop()
	readers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return l.step("wait for the last "+name, func() error {
		return poll(context.WithoutCancel(ctx), foreignSeen, func() error { return holds(path, version(i)) })
	})
}

// whole reads a file of which every page is one byte repeated. Two versions may meet
// in it, since what others replace meanwhile is promised to nobody who has it open.
func whole(path string, size int) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(got) != size {
		return fmt.Errorf("%d bytes, want %d", len(got), size)
	}
	const page = 4096
	for at, b := range got {
		if b != got[at/page*page] || b < 'A' || b > 'Z' {
			return fmt.Errorf("byte %d is %q, and the page begins with %q", at, b, got[at/page*page])
		}
	}
	return nil
}
