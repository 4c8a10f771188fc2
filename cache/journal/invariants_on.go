//go:build invariants

package journal

import (
	"bytes"
	"fmt"
)

// checkLocked panics when the record that was just appended is not what a replay
// would find at the end, or when it has taken what was not its to take.
func (l *Log) checkLocked(record []byte, spare int64) {
	t := l.mu.tape
	if !t.endless && t.allocated < t.size+spare {
		panic(fmt.Sprintf("journal: %d bytes of %d are written, and %d have to stay", t.size, t.allocated, spare))
	}
	at := t.size - int64(t.form.head()+len(record))
	found := 0
	end, damaged, err := newScanner(t.file, t.form, at, t.size).each(func(b []byte) error {
		if found++; !bytes.Equal(b, record) {
			panic("journal: the record that was just appended reads as another")
		}
		return nil
	})
	if err == nil && (found != 1 || end != t.size || damaged > 0) {
		panic(fmt.Sprintf("journal: a record at %d up to %d: %d found up to %d, %d bytes damaged", at, t.size, found, end, damaged))
	}
}

// spoil makes what a replay was given useless: who keeps it would see the next
// record there, some day.
func spoil(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}
