package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// Compact replaces the journal by the records that live emits. Appends go on
// meanwhile and end up behind them. One call at a time.
func (l *Log) Compact(live func(emit func(record []byte) error) error) (err error) {
	l.mu.Lock()
	l.mu.during, l.mu.tail = true, nil
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.mu.during, l.mu.tail = false, nil
		l.mu.Unlock()
	}()
	path := filepath.Join(l.dir, freshed)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("compact the journal: %w", diskError(err))
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("compact the journal: %w", errors.Join(diskError(err), f.Close(), os.Remove(path)))
		}
	}()
	buf := newHeader()
	size := int64(0)
	flush := func() error {
		n, err := f.WriteAt(buf, size)
		size += int64(n)
		buf = buf[:0]
		return err
	}
	err = live(func(record []byte) error {
		buf = append(buf, framed(record)...)
		if len(buf) < 1<<20 {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	buf = append(buf, l.mu.tail...)
	if err = flush(); err != nil {
		return err
	}
	if err = os.Rename(path, filepath.Join(l.dir, name)); err != nil {
		return err
	}
	old := l.mu.file
	l.mu.file, l.mu.size, l.mu.failed = f, size, nil
	_ = old.Close() // its name is gone
	return nil
}

// diskError classifies an error of the node's own disk.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return storage.Errorf(storage.Full, "the node's disk is full: %w", err)
	}
	return err
}
