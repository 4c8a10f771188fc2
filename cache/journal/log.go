package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	name     = "journal"
	freshed  = name + ".new"
	version  = 1
	header   = 8
	frame    = 8
	maxBytes = 16 << 20
)

var (
	magic = [4]byte{'H', 'F', 'J', 0}
	table = crc32.MakeTable(crc32.Castagnoli)
)

// Log is an open journal. It is safe for concurrent use.
type Log struct {
	dir string

	mu struct {
		sync.Mutex
		file *os.File
		size int64
		// failed is the first error of a write: what follows a torn record would
		// not be read, so nothing is appended any more.
		failed error
		// tail collects what is appended while Compact runs; nil otherwise.
		tail   []byte
		during bool
	}
}

// Open opens the journal in dir, which exists, and gives every record to replay,
// in order. Kind Invalid for another version, Corrupt when records in the middle
// are unreadable: the Log is usable then, and what is readable was replayed.
func Open(dir string, replay func(record []byte) error) (*Log, error) {
	if err := os.Remove(filepath.Join(dir, freshed)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("journal: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	l := &Log{dir: dir}
	l.mu.file = f
	end, damaged, err := load(f, replay)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	if end < header {
		if _, err := f.WriteAt(newHeader(), 0); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("journal %s: %w", dir, err)
		}
		end = header
	}
	if err := f.Truncate(end); err != nil { // a torn tail
		_ = f.Close()
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	l.mu.size = end
	if damaged > 0 {
		return l, storage.Errorf(storage.Corrupt, "journal %s: %d bytes in the middle are unreadable", dir, damaged)
	}
	return l, nil
}

func newHeader() []byte {
	b := make([]byte, header)
	copy(b, magic[:])
	binary.LittleEndian.PutUint32(b[4:], version)
	return b
}

// load replays a file and returns where the last readable record ends, and how
// many unreadable bytes lie before that.
func load(f *os.File, replay func([]byte) error) (end, damaged int64, err error) {
	data, err := io.ReadAll(f)
	if err != nil {
		return 0, 0, err
	}
	if len(data) < header {
		return 0, 0, nil // killed while it was made
	}
	if [4]byte(data[:4]) != magic {
		return 0, 0, storage.Errorf(storage.Invalid, "this is no journal")
	}
	if v := binary.LittleEndian.Uint32(data[4:]); v != version {
		return 0, 0, storage.Errorf(storage.Invalid, "version %d: this program reads version %d", v, version)
	}
	at, end := int64(header), int64(header)
	var gap int64
	for at < int64(len(data)) {
		payload, ok := parse(data[at:])
		if !ok {
			gap++
			at++
			continue
		}
		damaged += gap
		gap = 0
		if err := replay(payload); err != nil {
			return 0, 0, err
		}
		at += frame + int64(len(payload))
		end = at
	}
	return end, damaged, nil
}

// parse returns the payload of the record that b begins with.
func parse(b []byte) ([]byte, bool) {
	if len(b) < frame {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || n > maxBytes || int(n) > len(b)-frame {
		return nil, false
	}
	payload := b[frame : frame+int(n)]
	return payload, binary.LittleEndian.Uint32(b[4:]) == sum(b[:4], payload)
}

func sum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, table), table, payload)
}

// Append adds a record. When it returns the record outlives the process. Kind
// Full when the disk is.
func (l *Log) Append(record []byte) error {
	if len(record) == 0 || len(record) > maxBytes {
		return storage.Errorf(storage.Invalid, "a record of %d bytes: 1 to %d are allowed", len(record), maxBytes)
	}
	b := framed(record)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appendLocked(b)
}

func framed(record []byte) []byte {
	b := make([]byte, frame+len(record))
	binary.LittleEndian.PutUint32(b, uint32(len(record)))
	copy(b[frame:], record)
	binary.LittleEndian.PutUint32(b[4:], sum(b[:4], record))
	return b
}

func (l *Log) appendLocked(b []byte) error {
	if l.mu.failed != nil {
		return l.mu.failed
	}
	if n, err := l.mu.file.WriteAt(b, l.mu.size); err != nil {
		err = diskError(err)
		if n > 0 { // take the torn record back, so that later ones are found
			if cut := l.mu.file.Truncate(l.mu.size); cut != nil {
				l.mu.failed = fmt.Errorf("journal: %w", errors.Join(err, cut))
			}
		}
		return fmt.Errorf("journal: %w", err)
	}
	l.mu.size += int64(len(b))
	if l.mu.during {
		l.mu.tail = append(l.mu.tail, b...)
	}
	return nil
}

// Size of the file in bytes.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.size
}

// Remove removes the journal of a folder. A missing one is fine.
func Remove(dir string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.file.Close()
}
