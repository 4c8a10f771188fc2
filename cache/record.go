package cache

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the index on disk: one record per slot, at a fixed place, so that
// a record is one write of 32 bytes and the file never grows. It is a hint: the
// block's own header and sums decide. A log with compaction lost: twice the
// space, and a rename to get right. Reading the slots' headers at start lost:
// 100,000 reads all over the disk.

const (
	indexMagic = "HFci"
	// recordsAt is where the records begin, behind the file's header.
	recordsAt  = pageSize
	recordSize = 32
)

func indexSize(slots int) int64 { return recordsAt + int64(slots)*recordSize }

// bootID tells one run of the machine from another: what a process has written is
// there for the next one, unless the machine went down in between.
type bootID [16]byte

// indexHeader: magic 4, version 2, spare 2, the sizes of slots and units 4 each,
// boot 16, spare, sum 4.
func indexHeader(boot bootID) []byte {
	b := make([]byte, 64)
	copy(b, indexMagic)
	binary.LittleEndian.PutUint16(b[4:], formatVersion)
	binary.LittleEndian.PutUint32(b[8:], slotSize)
	binary.LittleEndian.PutUint32(b[12:], unitSize)
	copy(b[16:], boot[:])
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// record of a slot: key 16, length 4, stamp 8, sum 4. The stamp orders the blocks
// by age, and has the volume's mark in its upper 24 bits. The sum knows the slot. A length of zero says that the slot is free.
func putRecord(b []byte, slot uint32, k key, length int, stamp uint64, mark uint32) {
	copy(b, k[:])
	binary.LittleEndian.PutUint32(b[16:], uint32(length))
	binary.LittleEndian.PutUint64(b[20:], marked(stamp, mark))
	binary.LittleEndian.PutUint32(b[28:], recordSum(b, slot))
}

func recordSum(b []byte, slot uint32) uint32 {
	var seed [4]byte
	binary.LittleEndian.PutUint32(seed[:], slot)
	return crc32.Update(crc32.Update(0, castagnoli, seed[:]), castagnoli, b[:28])
}

// isIndex says whether f is ours: fresh when there is nothing of worth in it,
// Exists when it is somebody else's.
func isIndex(f file, size int64, boot bootID) (fresh, sameBoot bool, err error) {
	b := make([]byte, 64)
	n, err := f.readv([][]byte{b}, 0)
	switch {
	case err != nil:
		return false, false, err
	case n == len(b) && string(b) == string(indexHeader(bootID(b[16:32]))):
		return false, boot != bootID{} && boot == bootID(b[16:32]), nil
	case size == 0 || string(b[:4]) == indexMagic || strings.HasPrefix(indexMagic, string(bytes.TrimRight(b, "\x00"))):
		return true, false, nil // nothing, another version's, or a torn one
	}
	return false, false, storage.Errorf(storage.Exists, "%s was not made by the cache", indexName)
}

// load fills the table from the index and returns the greatest stamp. Blocks that
// are there go to the main queue, in the order of their age: what is read next,
// perhaps a scan, then has to earn its place.
func load(f file, t *table) (last uint64, err error) {
	type aged struct {
		stamp  uint64
		slot   uint32
		length uint32
		mark   uint32
		key    key
	}
	var found []aged
	buf := make([]byte, 8192*recordSize)
	for slot := 0; slot < len(t.entries); {
		want := buf[:min(len(buf), (len(t.entries)-slot)*recordSize)]
		n, err := f.readv([][]byte{want}, recordsAt+int64(slot)*recordSize)
		if err != nil {
			return 0, err
		}
		if n < recordSize {
			return 0, io.ErrUnexpectedEOF
		}
		for b := want[:n/recordSize*recordSize]; len(b) > 0; b, slot = b[recordSize:], slot+1 {
			length := binary.LittleEndian.Uint32(b[16:])
			if length == 0 || length > BlockSize || binary.LittleEndian.Uint32(b[28:]) != recordSum(b, uint32(slot)) {
				continue
			}
			stamp, mark := unmarked(binary.LittleEndian.Uint64(b[20:]))
			found = append(found, aged{stamp, uint32(slot), length, mark, key(b[:16])})
		}
	}
	slices.SortFunc(found, func(a, b aged) int { return cmp.Compare(a.stamp, b.stamp) })
	for _, x := range found {
		t.fresh = max(t.fresh, x.slot+1)
	}
	for _, x := range found {
		last = x.stamp
		e := &t.entries[x.slot]
		e.recorded, e.place = true, busy
		t.resize(x.slot, pagesOf(int(x.length)))
		if old := t.find(&x.key); old != none { // a longer one has taken its place
			t.remove(old)
			t.free(old)
		}
		t.add(x.slot, x.key, int(x.length), x.mark, true)
	}
	for s := t.fresh; s > 0; s-- { // the lowest is taken first
		if t.entries[s-1].place == unused {
			t.free(s - 1)
		}
	}
	return last, nil
}

func pagesOf(length int) uint16 { return uint16((stored(length) + pageSize - 1) / pageSize) }
