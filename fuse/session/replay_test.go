package session_test

import "encoding/binary"

// initRequest is an INIT as kernel 6.18 sends it.
func initRequest() []byte {
	b := make([]byte, 104)
	le := binary.NativeEndian
	le.PutUint32(b[0:], 104)
	le.PutUint32(b[4:], 26)
	le.PutUint64(b[8:], 2)
	le.PutUint32(b[40:], 7)
	le.PutUint32(b[44:], 45)
	le.PutUint32(b[48:], 128<<10)
	le.PutUint32(b[52:], 0x73fffffb)
	le.PutUint32(b[56:], 0x5fd)
	return b
}

// initReply is an answer with the given promises.
func initReply(maxWrite uint32, flags uint64) []byte {
	b := make([]byte, 80)
	le := binary.NativeEndian
	le.PutUint32(b[0:], 80)
	le.PutUint64(b[8:], 2)
	le.PutUint32(b[16:], 7)
	le.PutUint32(b[20:], 28)
	le.PutUint32(b[28:], uint32(flags)|1<<30)
	le.PutUint32(b[36:], maxWrite)
	le.PutUint32(b[48:], uint32(flags>>32))
	return b
}
