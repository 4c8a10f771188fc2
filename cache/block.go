package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the form of one block on disk: a header, then units of 32 KiB,
// each followed by its own checksum. FORMAT.md has the picture.
//
// One checksum over the whole block lost: a read of 4 KiB would read and sum
// 1 MiB. A table of sums in the header lost: it lies elsewhere, so a small read
// would be two, or the table would have to stay in memory (128 bytes a block).
// The sum of a unit begins with the block's key, so bytes of another block, or of
// another place in the same, are as wrong as flipped ones.

const (
	// BlockSize is what a sequential miss fetches: with the kernel's read-ahead of
	// 1 MiB one request per MiB.
	BlockSize = 1 << 20
	// pieceSize is what a random miss fetches: twice what a random reader of 4 KiB
	// wants, and a page of most databases (FORMAT.md).
	pieceSize = 8 << 10
	// unitSize is what a small read must read and sum.
	unitSize = 32 << 10
	sumSize  = 4
	// headerSize: magic 4, version 2, spare 2, key 16, length 4, spare 32, sum 4.
	headerSize = 64
	// slotSize is where the next block begins: the longest block, and a multiple
	// of what file systems allocate.
	slotSize = BlockSize + 4096

	formatVersion = 1
)

const blockMagic = "HFcb"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// key names one block of one chunk of one cluster: the first half of a SHA-256.
// 128 bits of it are enough to take equal keys for equal blocks, and fit an index
// without pointers; names of any length cost the same.
type key [16]byte

// scope tells clusters apart, which give out the same chunk ids.
type scope [sha256.Size]byte

func newScope(cluster string) scope { return sha256.Sum256([]byte("holdfast cache\x00" + cluster)) }

// span is a block or a piece of a chunk.
type span struct {
	off  int64
	size int64 // BlockSize or pieceSize
}

func blockAt(off int64) span { return span{off / BlockSize * BlockSize, BlockSize} }
func pieceAt(off int64) span { return span{off / pieceSize * pieceSize, pieceSize} }

func (s scope) key(id storage.ChunkID, sp span) key {
	var room [128]byte
	b := append(room[:0], s[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(sp.off))
	b = binary.LittleEndian.AppendUint64(b, uint64(sp.size))
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// sum of a unit of the block k.
func (k *key) sum(unit int, data []byte) uint32 {
	var seed [20]byte
	copy(seed[:], k[:])
	binary.LittleEndian.PutUint32(seed[16:], uint32(unit))
	return crc32.Update(crc32.Update(0, castagnoli, seed[:]), castagnoli, data)
}

func units(length int) int { return (length + unitSize - 1) / unitSize }

// unitAt is where unit u begins, counted from the slot.
func unitAt(u int) int64 { return headerSize + int64(u)*(unitSize+sumSize) }

// stored is what a block of so many bytes takes, headers and sums included.
func stored(length int) int64 { return headerSize + int64(length) + int64(units(length))*sumSize }

func header(k key, length int) []byte {
	b := make([]byte, headerSize)
	copy(b, blockMagic)
	binary.LittleEndian.PutUint16(b[4:], formatVersion)
	copy(b[8:], k[:])
	binary.LittleEndian.PutUint32(b[24:], uint32(length))
	binary.LittleEndian.PutUint32(b[headerSize-sumSize:], crc32.Checksum(b[:headerSize-sumSize], castagnoli))
	return b
}

// encode returns what is written of a block, without copying data.
func encode(k key, data []byte) [][]byte {
	n := units(len(data))
	parts := make([][]byte, 0, 1+2*n)
	parts = append(parts, header(k, len(data)))
	sums := make([]byte, 0, n*sumSize)
	for u := range n {
		part := data[u*unitSize : min((u+1)*unitSize, len(data))]
		sums = binary.LittleEndian.AppendUint32(sums, k.sum(u, part))
		parts = append(parts, part, sums[u*sumSize:])
	}
	return parts
}
