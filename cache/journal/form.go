package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is how bytes stand in the file; FORMAT.md has the picture.
//
// Version 1 had one sum over length and payload. It lost: a length could not be
// trusted before the whole payload was read, so damage cost time without bound,
// and a record that somebody had written into a file, and so into a payload, was
// as good as ours once the search for the next one came upon it. Now the sum in a
// record's head knows the file and the place: what stands elsewhere is no record.

const (
	version = 2
	// headerSize: magic 4, version 4, salt 8, spare 4, sum 4.
	headerSize = 24
	// headSize: length 4, sum of the payload 4, sum of the head 4.
	headSize = 12
	maxBytes = 16 << 20
	// refusedBit in the length of a head: what stands there was refused or cut short,
	// up to that length, and no record follows. A program that does not know it sees
	// no record there either.
	refusedBit = 1 << 31

	headerSize1, headSize1 = 8, 8
)

var (
	magic = [4]byte{'H', 'F', 'J', 0}
	table = crc32.MakeTable(crc32.Castagnoli)
)

// form is how the records of one file are written. Of version 1 are those that
// were begun by an older program; the next compaction ends that.
type form struct {
	version uint32
	seed    uint32 // of the sums of heads; each file has its own
}

// newForm makes the form and the header of a new file. Its salt is its own.
func newForm(salt uint64) (form, []byte) {
	b := make([]byte, headerSize)
	copy(b, magic[:])
	binary.LittleEndian.PutUint32(b[4:], version)
	binary.LittleEndian.PutUint64(b[8:], salt)
	binary.LittleEndian.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], table))
	return form{version, crc32.Checksum(b, table)}, b
}

// parseForm reads the beginning of a file. Not ok: the process was killed while
// it made the file, and nothing is in it. Corrupt when the header is damaged,
// Invalid when this is something that we did not make.
func parseForm(b []byte) (f form, ok bool, err error) {
	if len(b) < headerSize1 {
		return form{}, false, nil
	}
	v := binary.LittleEndian.Uint32(b[4:])
	switch {
	case [8]byte(b) == [8]byte{}:
		return form{}, false, storage.Errorf(storage.Corrupt, "the header is gone")
	case [4]byte(b) != magic:
		return form{}, false, storage.Errorf(storage.Invalid, "this is no journal")
	case v == 1:
		return form{version: 1}, true, nil
	case v != version:
		return form{}, false, storage.Errorf(storage.Invalid, "version %d: this program reads versions 1 to %d", v, version)
	case len(b) < headerSize:
		return form{}, false, nil
	case binary.LittleEndian.Uint32(b[headerSize-4:]) != crc32.Checksum(b[:headerSize-4], table):
		return form{}, false, storage.Errorf(storage.Corrupt, "the header is damaged")
	}
	return form{version, crc32.Checksum(b[:headerSize], table)}, true, nil
}

// start is where the first record stands.
func (f form) start() int64 {
	if f.version == 1 {
		return headerSize1
	}
	return headerSize
}

// head is the size of a record without its payload.
func (f form) head() int {
	if f.version == 1 {
		return headSize1
	}
	return headSize
}

// seal fills the head of the record b, whose payload is in its place and has sum,
// and which is to stand at the offset at.
func (f form) seal(room *sumRoom, b []byte, at int64, sum uint32) {
	payload := b[f.head():]
	binary.LittleEndian.PutUint32(b, uint32(len(payload)))
	if f.version == 1 {
		binary.LittleEndian.PutUint32(b[4:], sum1(b[:4], payload))
		return
	}
	binary.LittleEndian.PutUint32(b[4:], sum)
	binary.LittleEndian.PutUint32(b[8:], f.headSum(room, b, at))
}

// sumRoom is memory for what a head's sum is over: hash/crc32 would have it
// allocated for each.
type sumRoom [16]byte

func (f form) headSum(b *sumRoom, head []byte, at int64) uint32 {
	copy(b[:8], head)
	binary.LittleEndian.PutUint64(b[8:], uint64(at))
	return crc32.Update(f.seed, table, b[:])
}

func sum1(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, table), table, payload)
}

// refuse fills the head at the offset at, so that the n bytes behind it are no
// record. Version 1 has no word for it.
func (f form) refuse(room *sumRoom, head []byte, at, n int64) {
	clear(head)
	if f.version == 1 {
		return
	}
	binary.LittleEndian.PutUint32(head, uint32(n)|refusedBit)
	binary.LittleEndian.PutUint32(head[8:], f.headSum(room, head, at))
}

// length of the payload whose head is at the offset at, and whether it is no record
// but refused. Of version 1 it may be chance.
func (f form) length(room *sumRoom, head []byte, at int64) (n int, refused, ok bool) {
	raw := binary.LittleEndian.Uint32(head)
	if f.version > 1 {
		refused = raw&refusedBit != 0
		raw &^= refusedBit
	}
	if raw == 0 && !refused || raw > maxBytes {
		return 0, false, false
	}
	return int(raw), refused, f.version == 1 || binary.LittleEndian.Uint32(head[8:]) == f.headSum(room, head, at)
}

// intact says whether payload is what the head was made for.
func (f form) intact(head, payload []byte) bool {
	if f.version == 1 {
		return binary.LittleEndian.Uint32(head[4:]) == sum1(head[:4], payload)
	}
	return binary.LittleEndian.Uint32(head[4:]) == crc32.Checksum(payload, table)
}
