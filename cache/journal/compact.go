package journal

import (
	"errors"
	"fmt"
	"os"
)

// lastRounds is how often Compact follows the appends without stopping them.
const lastRounds = 8

// Compact replaces the journal by the records that live emits. Appends go on
// meanwhile and end up behind them: they are copied from the old file, so that
// memory does not hold them. One call at a time. A durable log's new file is on the
// disk before it takes the old one's name, and so is all that has a name in the
// folder by then.
func (l *Log) Compact(live func(emit func(record []byte) error) error) error {
	if err := l.compact(live); err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	return nil
}

func (l *Log) compact(live func(emit func(record []byte) error) error) (err error) {
	l.mu.Lock()
	old, from := l.mu.tape, l.mu.size
	l.mu.Unlock()
	f, err := l.disk.open(freshed, true)
	if err != nil {
		return diskError(err)
	}
	taken := false
	defer func() {
		if err != nil && !taken {
			err = errors.Join(err, f.Close(), l.disk.remove(freshed))
		}
	}()
	t, err := newTape(f)
	if err != nil {
		return err
	}
	out := &batch{tape: t}
	if err := live(out.add); err != nil {
		return err
	}
	follow := func(to int64) error {
		if to == from {
			return nil
		}
		end, damaged, err := newScanner(old.file, old.form, from, to).each(out.add)
		if err == nil && (end != to || damaged > 0) {
			err = errors.New("what was just appended cannot be read")
		}
		from = to
		return err
	}
	for range lastRounds {
		to := l.Size()
		if to-from < batchSize {
			break
		}
		if err := follow(to); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	if err := l.flush(f); err != nil { // most of it, while others append
		return err
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return os.ErrClosed
	}
	if err := follow(l.mu.size); err != nil {
		return err
	}
	if err := out.flush(); err != nil {
		return err
	}
	if l.mu.unkept {
		if _, err := keep(l.disk, old.file); err != nil {
			return fmt.Errorf("keep the damaged one: %w", diskError(err))
		}
		l.mu.unkept = false
	}
	// On a full disk the reserve comes from what the old file gives back.
	_ = t.room(0, reserve)
	if err := l.flush(f); err != nil {
		return err
	}
	if err := l.renamedLocked(f); err != nil {
		return err
	}
	taken = true
	l.mu.tape, l.mu.lost, l.mu.unsafe, l.mu.synced = t, nil, nil, t.size
	_ = old.file.Close() // its name is gone
	_ = t.room(0, reserve)
	if !l.durable {
		return nil
	}
	if err := l.disk.sync(); err != nil { // after a power cut the name may lead to the old file
		l.mu.unsafe = fmt.Errorf("journal: flush its name: %w", diskError(err))
		return l.mu.unsafe
	}
	return nil
}

// flush brings the new file of a durable log, and its name, to the disk.
func (l *Log) flush(f file) error {
	if !l.durable {
		return nil
	}
	if err := f.sync(); err != nil {
		return diskError(err)
	}
	if err := l.disk.sync(); err != nil {
		return diskError(err)
	}
	return nil
}

// renamedLocked gives f the journal's name. An error of rename(2) does not tell
// whether it was carried out, and appending to a file without a name would lose
// what is acknowledged.
func (l *Log) renamedLocked(f file) error {
	err := l.disk.rename(freshed, name)
	if err == nil {
		return nil
	}
	done, unknown := l.disk.names(name, f)
	if unknown != nil {
		l.mu.lost = fmt.Errorf("journal: which file has its name is not known: %w", errors.Join(err, unknown))
		return l.mu.lost
	}
	if done {
		return nil
	}
	return diskError(err)
}
