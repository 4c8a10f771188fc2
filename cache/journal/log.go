package journal

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// Log is an open journal. It is safe for concurrent use.
type Log struct {
	disk disk
	// durable: what Sync has promised outlives the machine.
	durable bool

	// syncing is held by whoever flushes the file, or takes it away.
	syncing sync.Mutex

	mu struct {
		sync.Mutex
		*tape
		// lost is set when it is not known which file has the journal's name: what
		// is appended to the wrong one is gone with the process.
		lost error
		// synced is how much of the file is on the disk for certain.
		synced int64
		// unsafe is why nothing more of this file is: once a flush has failed, the
		// kernel takes for clean what never came to the disk, and the next one
		// succeeds. A compaction writes it all anew.
		unsafe error
		// closed Logs take no new file from a compaction.
		closed bool
		// unkept: the file is damaged, and has no second name yet. A compaction would
		// take its only one.
		unkept bool
	}
}

// Open opens the journal in dir, which exists, and gives every record to replay,
// in order; the bytes are replay's only until it returns. Kind Invalid for another
// version, Corrupt when there are bytes that cannot be read: the Log is usable
// then, what is readable was replayed, and the file is kept (Kept).
func Open(dir string, replay func(record []byte) error) (*Log, error) {
	l, err := open(folder(dir), replay)
	if err != nil {
		err = fmt.Errorf("journal %s: %w", dir, err)
	}
	return l, err
}

// OpenDurable is Open for a log of which Sync is asked: it is on the disk, with its
// name, and stays there when it is compacted.
func OpenDurable(dir string, replay func(record []byte) error) (*Log, error) {
	l, err := Open(dir, replay)
	if l == nil {
		return nil, err
	}
	if flushErr := l.keep(); flushErr != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", dir, flushErr), l.Close())
	}
	return l, err
}

// keep makes a log durable.
func (l *Log) keep() error {
	l.durable = true
	if err := l.Sync(); err != nil {
		return err
	}
	return l.disk.sync()
}

func open(d disk, replay func([]byte) error) (l *Log, err error) {
	_ = d.remove(freshed) // else the next compaction empties it
	f, err := d.open(name, false)
	if err != nil {
		return nil, diskError(err)
	}
	defer func() {
		if l == nil && f != nil {
			_ = f.Close()
		}
	}()
	size, form, ok, err := begin(f)
	var t *tape
	var damage error
	var unkept bool
	switch {
	case storage.Is(err, storage.Corrupt): // without its header no record can be told from chance
		kept, keepErr := keep(d, f)
		if keepErr != nil {
			return nil, diskError(keepErr)
		}
		damage = fmt.Errorf("%w; the file is kept as %s", err, kept)
		if err := d.remove(name); err != nil {
			return nil, err
		}
		_ = f.Close()
		if f, err = d.open(name, false); err != nil {
			return nil, diskError(err)
		}
		t, err = newTape(f)
	case err != nil:
	case !ok:
		t, err = newTape(f)
	default:
		var damaged int64
		t, damaged, err = load(f, form, size, replay)
		if damaged > 0 {
			kept, keepErr := keep(d, f)
			if unkept = keepErr != nil; unkept {
				damage = storage.Errorf(storage.Corrupt, "%d bytes are unreadable, and the file cannot be kept yet: %w", damaged, keepErr)
			} else {
				damage = storage.Errorf(storage.Corrupt, "%d bytes are unreadable; the file is kept as %s", damaged, kept)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	// Not having a reserve is no reason to refuse what there is.
	_ = t.room(0, reserve)
	l = &Log{disk: d}
	l.mu.tape, l.mu.unkept = t, unkept
	return l, damage
}

// keep gives the journal, which is f, a second name that nothing here takes away.
func keep(d disk, f file) (as string, err error) {
	for i := range maxKept {
		as = aside
		if i > 0 {
			as = fmt.Sprintf("%s-%d", aside, i+1)
		}
		if same, err := d.names(as, f); err == nil && same {
			return as, nil
		}
		err = d.link(name, as)
		if !errors.Is(err, fs.ErrExist) {
			return as, err
		}
	}
	return "", fmt.Errorf("%d damaged journals are kept already: %w", maxKept, err)
}

// Kept lists the damaged journals that are kept in dir, by their names there.
// Nothing here reads or removes them.
func Kept(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var kept []string
	for _, e := range entries {
		if e.Name() == aside || strings.HasPrefix(e.Name(), aside+"-") {
			kept = append(kept, e.Name())
		}
	}
	return kept, nil
}

// begin reads the header.
func begin(f file) (size int64, _ form, ok bool, err error) {
	if size, err = f.size(); err != nil {
		return 0, form{}, false, err
	}
	b := make([]byte, min(size, headerSize))
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, form{}, false, err
	}
	form, ok, err := parseForm(b)
	return size, form, ok, err
}

// load replays a file.
func load(f file, form form, size int64, replay func([]byte) error) (_ *tape, damaged int64, err error) {
	end, damaged, err := newScanner(f, form, form.start(), size).each(replay)
	if err != nil {
		return nil, 0, err
	}
	if form.version == 1 && end < size { // its records do not know their place: leave nothing behind the end
		if err := f.Truncate(end); err != nil {
			return nil, 0, err
		}
	}
	return &tape{file: f, form: form, size: end, spoiled: size}, damaged, nil
}

// Append adds a record. When it returns the record outlives the process. Kind
// Full when the disk is, or nearly so. A record that was refused is gone, unless
// the disk also refuses to take back what it has: then a replay may give it.
func (l *Log) Append(record []byte) error { return l.add(record, reserve) }

// AppendReserved is Append for records without which a full disk stays full: what
// is committed, and what no longer waits. They may use what is left when Append
// is refused.
func (l *Log) AppendReserved(record []byte) error { return l.add(record, 0) }

// AppendHalf is Append for records that a full disk should still take, but that
// come in floods: they leave half of what only AppendReserved may use.
func (l *Log) AppendHalf(record []byte) error { return l.add(record, reserve/2) }

func (l *Log) add(record []byte, spare int64) error {
	if err := checkSize(record); err != nil {
		return err
	}
	buf := records.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= keepRecord {
			records.Put(buf)
		}
	}()
	sum := crc32.Checksum(record, table)
	*buf = append(append((*buf)[:0], make([]byte, headSize)...), record...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.lost != nil {
		return l.mu.lost
	}
	if err := l.mu.put((*buf)[headSize-l.mu.form.head():], sum, spare); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	l.checkLocked(record, spare)
	return nil
}

// Sync returns when all that was appended before is on the disk. Calls at the same
// time share a flush. When one has failed, all do until a compaction has written the
// journal anew. Only of a log of OpenDurable it is a promise.
func (l *Log) Sync() error {
	l.mu.Lock()
	t, to := l.mu.tape, l.mu.size
	l.mu.Unlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	err, done := cmp.Or(l.mu.lost, l.mu.unsafe), l.mu.tape != t || l.mu.synced >= to // a compaction flushes too
	t, to = l.mu.tape, l.mu.size
	l.mu.Unlock()
	if err != nil || done {
		return err
	}
	if err = t.file.sync(); err != nil {
		err = fmt.Errorf("journal: flush: %w", diskError(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.unsafe = err
		return err
	}
	l.mu.synced = to
	return nil
}

// Size of the records in bytes.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.size
}

// SizeIn is the size of a folder's journal on the disk, in bytes; 0 when there is none.
func SizeIn(dir string) (int64, error) {
	info, err := os.Lstat(filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("journal: %w", err)
	}
	return info.Size(), nil
}

// Remove removes the journal of a folder. A missing one is fine, a damaged one
// that was kept stays.
func Remove(dir string) error {
	d := folder(dir)
	if err := errors.Join(d.remove(name), d.remove(freshed)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.closed = true
	return l.mu.file.Close()
}
