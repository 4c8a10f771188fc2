package cache

import "sync"

// Memory for blocks goes round, or a fast reader would make a gigabyte of garbage
// in a second. There are three sizes: for random readers, for small files, for
// sequential readers.

const middleSize = 128 << 10

var (
	pieceBuffers  = sync.Pool{New: func() any { return new([pieceSize]byte) }}
	middleBuffers = sync.Pool{New: func() any { return new([middleSize]byte) }}
	blockBuffers  = sync.Pool{New: func() any { return new([BlockSize]byte) }}
)

// room is the memory that a block takes on its way.
func (w want) room() int64 {
	switch {
	case w.size <= pieceSize:
		return pieceSize
	case w.size <= middleSize:
		return middleSize
	}
	return BlockSize
}

func buffer(n int) []byte {
	switch {
	case n <= pieceSize:
		return pieceBuffers.Get().(*[pieceSize]byte)[:n]
	case n <= middleSize:
		return middleBuffers.Get().(*[middleSize]byte)[:n]
	}
	return blockBuffers.Get().(*[BlockSize]byte)[:n]
}

func recycle(b []byte) {
	switch cap(b) {
	case pieceSize:
		pieceBuffers.Put((*[pieceSize]byte)(b[:pieceSize]))
	case middleSize:
		middleBuffers.Put((*[middleSize]byte)(b[:middleSize]))
	default:
		blockBuffers.Put((*[BlockSize]byte)(b[:BlockSize]))
	}
}
