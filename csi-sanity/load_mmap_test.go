package csisanity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// mmapVariable is set in the process that maps the file: one of its own, since a
// thread that waits for a page cannot be stopped by Go's collector, which would
// stop the whole load.
const mmapVariable = "HOLDFAST_SANITY_MMAP"

// mmap writes through a shared mapping and through the file, and reads both.
func (l *load) mmap(ctx context.Context, rng *rand.Rand) error {
	const name = "mmap"
	path := filepath.Join(l.dir, name)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", mmapVariable, rng.Uint64(), path))
	stdin, err := cmd.StdinPipe() // it works until this is closed
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = stdin.Close() })
	defer stop()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	var sum string
	var steps int64
	if _, err := fmt.Sscan(out.String(), &sum, &steps); err != nil {
		return fmt.Errorf("%w: %q", err, out.String())
	}
	l.done.Add(steps)
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if is := fmt.Sprintf("%x", sha256.Sum256(got)); is != sum {
		return fmt.Errorf("the file that was mapped has the sum %s, want %s", is, sum)
	}
	l.keep(name, got)
	return nil
}

// mapMain is that process. It prints the sum of what must be in the file, and how
// many steps it did.
func mapMain(what string) error {
	var seed uint64
	var path string
	if _, err := fmt.Sscan(what, &seed, &path); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	m := &mapped{rng: rand.New(rand.NewPCG(seed, 0)), model: make([]byte, 1<<20)}
	var err error
	if m.f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := m.f.Truncate(int64(len(m.model))); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	if err := m.remap(); err != nil {
		return err
	}
	for steps := 0; ; steps++ {
		select {
		case <-ended:
			if err := errors.Join(m.sync(), syscall.Munmap(m.bytes), m.f.Close()); err != nil {
				return fmt.Errorf("step %d: the end: %w", steps, err)
			}
			_, err := fmt.Fprintf(os.Stdout, "%x %d\n", sha256.Sum256(m.model), steps)
			return err
		default:
		}
		if err := m.step(); err != nil {
			return fmt.Errorf("mmap seed %d, step %d: %w", seed, steps, err)
		}
	}
}

type mapped struct {
	f     *os.File
	rng   *rand.Rand
	bytes []byte
	model []byte
}

func (m *mapped) step() error {
	off := m.rng.IntN(len(m.model))
	data := noise(m.rng, 1+m.rng.IntN(min(20_000, len(m.model)-off)))
	switch m.rng.IntN(8) {
	case 0:
		return m.sync()
	case 1:
		copy(m.model[off:], data)
		if _, err := m.f.WriteAt(data, int64(off)); err != nil {
			return fmt.Errorf("write %d at %d beside the mapping: %w", len(data), off, err)
		}
	case 2:
		got := make([]byte, len(m.model))
		if n, err := m.f.ReadAt(got, 0); n < len(got) {
			return fmt.Errorf("read beside the mapping: %d bytes of %d: %w", n, len(got), err)
		}
		if err := differ(got, m.model); err != nil {
			return fmt.Errorf("read beside the mapping: %w", err)
		}
	case 3:
		if err := differ(m.bytes, m.model); err != nil {
			return fmt.Errorf("read through the mapping: %w", err)
		}
	case 4:
		if m.rng.IntN(4) == 0 {
			if err := syscall.Munmap(m.bytes); err != nil {
				return err
			}
			return m.remap()
		}
	default:
		copy(m.model[off:], data)
		copy(m.bytes[off:], data)
	}
	return nil
}

func (m *mapped) remap() (err error) {
	m.bytes, err = syscall.Mmap(int(m.f.Fd()), 0, len(m.model), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	return nil
}

func (m *mapped) sync() error {
	if _, _, errno := syscall.Syscall(syscall.SYS_MSYNC, uintptr(unsafe.Pointer(&m.bytes[0])), uintptr(len(m.bytes)), syscall.MS_SYNC); errno != 0 {
		return fmt.Errorf("msync: %w", errno)
	}
	return nil
}
