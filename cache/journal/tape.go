package journal

import (
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file writes, and keeps room to write.
//
// The reserve is allocated behind the end of the journal itself, so whoever else
// fills the disk cannot have it. A file of its own, removed when the disk is full,
// lost: between its removal and our write somebody else may take the space.

const (
	// reserve is what only AppendReserved may use: some ten thousand records of a
	// hundred bytes.
	reserve = 1 << 20
	// step is how much is allocated at once.
	step = 1 << 20
)

// tape is one file that records are written to.
//
// INVARIANT: what is behind size is no record, and says so: it is shorter than a
// head, begins with one that was refused, or with that of a record which is longer
// than the file. The next record is written over it. All else is damage.
type tape struct {
	file file
	form form
	size int64
	// spoiled is how far there may be something that no record is.
	spoiled int64
	// allocated is how far the disk has room for certain. endless: it cannot say.
	allocated int64
	endless   bool
	sum       sumRoom
}

// newTape begins a file.
func newTape(f file) (*tape, error) {
	t := &tape{file: f}
	var header []byte
	t.form, header = newForm(rand.Uint64())
	if err := t.room(headerSize, 0); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(header, 0); err != nil {
		return nil, diskError(err)
	}
	t.size = headerSize
	return t, nil
}

// room makes sure of n bytes behind the end and spare ones behind those.
func (t *tape) room(n int, spare int64) error {
	need := t.size + int64(n) + spare
	if t.endless || need <= t.allocated {
		return nil
	}
	from := max(t.size, t.allocated)
	for _, to := range []int64{need + step, need} {
		err := t.file.allocate(from, to-from)
		switch {
		case err == nil:
			t.allocated = to
			return nil
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			t.endless = true
			return nil
		case !isFull(err):
			return err
		case to == need:
			return diskError(err)
		}
	}
	return nil
}

// put writes one record, whose payload stands in b behind room for the head.
func (t *tape) put(b []byte, sum uint32, spare int64) error {
	end := t.size + int64(len(b))
	t.form.seal(&t.sum, b, t.size, sum)
	if t.spoiled > end { // what this record leaves of it is to be told from damage
		b = append(b, t.refusal(end)...)
	}
	if err := t.room(len(b), spare); err != nil {
		return err
	}
	if _, err := t.file.WriteAt(b, t.size); err != nil {
		// A replay must not find it: it was refused. Where the disk refuses this
		// too, the next record goes over it, or its sums tell.
		t.spoiled = max(t.spoiled, t.size+int64(len(b)))
		_, _ = t.file.WriteAt(t.refusal(t.size), t.size)
		return diskError(err)
	}
	t.size = end
	return nil
}

// refusal is the head that says of what is spoiled behind the offset at that it is
// no record.
func (t *tape) refusal(at int64) []byte {
	head := make([]byte, t.form.head())
	t.form.refuse(&t.sum, head, at, max(0, t.spoiled-at-int64(len(head))))
	return head
}

// batch collects records for a tape and writes them together.
type batch struct {
	tape *tape
	buf  []byte
}

const batchSize = 1 << 20

func (b *batch) add(payload []byte) error {
	if err := checkSize(payload); err != nil {
		return err
	}
	at := len(b.buf)
	b.buf = append(append(b.buf, make([]byte, headSize)...), payload...)
	b.tape.form.seal(&b.tape.sum, b.buf[at:], b.tape.size+int64(at), crc32.Checksum(payload, table))
	if len(b.buf) < batchSize {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	if err := b.tape.room(len(b.buf), 0); err != nil {
		return err
	}
	if _, err := b.tape.file.WriteAt(b.buf, b.tape.size); err != nil {
		return diskError(err)
	}
	b.tape.size += int64(len(b.buf))
	b.buf = b.buf[:0]
	return nil
}

// records is memory for one record at a time, head and payload.
var records = sync.Pool{New: func() any { return new([]byte) }}

// keepRecord: a longer one is rare, and its memory not worth keeping.
const keepRecord = 1 << 20

func checkSize(payload []byte) error {
	if len(payload) == 0 || len(payload) > maxBytes {
		return storage.Errorf(storage.Invalid, "a record of %d bytes: 1 to %d are allowed", len(payload), maxBytes)
	}
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskError classifies an error of the node's own disk.
func diskError(err error) error {
	if isFull(err) && !storage.Is(err, storage.Full) {
		return storage.Errorf(storage.Full, "the node's disk is full: %w", err)
	}
	return err
}
