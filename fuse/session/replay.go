package session

import (
	"encoding/binary"
	"log/slog"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file replays INIT. The kernel sends it once; every process that serves
// the session later must come to the same result. So the request is replayed
// with its flags cut down to what was agreed, and a version that cannot produce
// the same answer refuses the session instead of misreading it.

// Offsets in the messages (linux/fuse.h).
const (
	inHeaderSize  = 40
	outHeaderSize = 16

	opcodeAt = 4
	uniqueAt = 8
	nodeIDAt = 16

	initInFlags  = inHeaderSize + 12
	initInFlags2 = inHeaderSize + 16

	initOutFlags    = outHeaderSize + 12
	initOutMaxWrite = outHeaderSize + 20
	initOutFlags2   = outHeaderSize + 32
	initOutSize     = outHeaderSize + 64

	opInit = 26
)

var native = binary.NativeEndian

// replay makes a ProtocolServer that has seen INIT and returns it with the
// answer. known is the answer that the kernel has got already, or nil.
func replay(raw fuse.RawFileSystem, request, known []byte, log *slog.Logger) (*fuse.ProtocolServer, []byte, error) {
	if len(request) < initInFlags2+4 || native.Uint32(request[opcodeAt:]) != opInit {
		return nil, nil, storage.Errorf(storage.Invalid, "%d bytes that are not an INIT request of a kernel with extended flags (5.16 or newer)", len(request))
	}
	opts := mountOptions(log)
	request = slices.Clone(request)
	if known != nil {
		if len(known) < initOutSize {
			return nil, nil, storage.Errorf(storage.Invalid, "%d bytes that are not an INIT answer", len(known))
		}
		agreed := flags64(known, initOutFlags, initOutFlags2)
		opts.ExtraCapabilities = agreed
		opts.MaxWrite = int(native.Uint32(known[initOutMaxWrite:]))
		native.PutUint32(request[initInFlags:], native.Uint32(request[initInFlags:])&uint32(agreed))
		native.PutUint32(request[initInFlags2:], native.Uint32(request[initInFlags2:])&uint32(agreed>>32))
	}
	server := fuse.NewProtocolServer(raw, opts)
	out := make([]byte, 4096)
	n, status := server.HandleRequest([][]byte{request}, [][]byte{out})
	if !status.Ok() || n < initOutSize || native.Uint32(out[4:]) != 0 {
		return nil, nil, storage.Errorf(storage.Unsupported, "the kernel's INIT request cannot be answered: %v", status)
	}
	answer := out[:n:n]
	maxWrite := int(native.Uint32(answer[initOutMaxWrite:]))
	if maxWrite > MaxWrite {
		return nil, nil, storage.Errorf(storage.Unsupported, "the session was opened for writes of %d bytes, this version reads %d", maxWrite, MaxWrite)
	}
	if known != nil {
		if a, b := flags64(known, initOutFlags, initOutFlags2), flags64(answer, initOutFlags, initOutFlags2); a != b {
			return nil, nil, storage.Errorf(storage.Unsupported, "the session was opened with the capabilities %#x, this version comes to %#x", a, b)
		}
		if a := int(native.Uint32(known[initOutMaxWrite:])); a != maxWrite {
			return nil, nil, storage.Errorf(storage.Unsupported, "the session was opened for writes of %d bytes, this version comes to %d", a, maxWrite)
		}
		answer = slices.Clone(known)
	}
	return server, answer, nil
}

func flags64(b []byte, low, high int) uint64 {
	return uint64(native.Uint32(b[low:])) | uint64(native.Uint32(b[high:]))<<32
}
