package cache

import (
	"encoding/binary"
	"sync"
)

// reading is the room that one read from the disk needs besides its caller's.
type reading struct {
	edges [2][unitSize]byte
	sums  [BlockSize / unitSize][sumSize]byte
	parts [2 * BlockSize / unitSize][]byte
}

var readings = sync.Pool{New: func() any { return new(reading) }}

// readUnits reads the units that b touches, in one call: those that b takes whole
// go straight to their place, those at its edges by way of r.
func (s *slab) readUnits(slot uint32, k key, length int, b []byte, off int) bool {
	if len(b) == 0 {
		return true
	}
	r := readings.Get().(*reading)
	defer readings.Put(r)
	first, last := off/unitSize, (off+len(b)-1)/unitSize
	parts, want := r.parts[:0], 0
	for u := first; u <= last; u++ {
		from, to := u*unitSize, min((u+1)*unitSize, length)
		part := r.edges[min(u-first, 1)][:to-from]
		if from >= off && to <= off+len(b) {
			part = b[from-off : to-off]
		}
		parts = append(parts, part, r.sums[u-first][:])
		want += len(part) + sumSize
	}
	n, err := s.blocks.readv(parts, int64(slot)*slotSize+unitAt(first))
	ok := err == nil && n == want
	for u := first; u <= last && ok; u++ {
		part := parts[2*(u-first)]
		ok = binary.LittleEndian.Uint32(r.sums[u-first][:]) == k.sum(u, part)
		if from := u * unitSize; ok && (from < off || from+len(part) > off+len(b)) {
			copy(b[max(from-off, 0):], part[max(off-from, 0):])
		}
	}
	clear(parts)
	return ok
}
