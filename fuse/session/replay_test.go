package session_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
)

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

// A session that was opened by another version keeps what was agreed with that
// one: fewer capabilities, others, smaller writes.
func TestReplayKeepsTheAgreement(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, flags := range map[string]uint64{
		"fewer":  fuse.CAP_ASYNC_READ | fuse.CAP_BIG_WRITES,
		"others": fuse.CAP_ASYNC_READ | fuse.CAP_WRITEBACK_CACHE | fuse.CAP_HAS_EXPIRE_ONLY,
	} {
		t.Run(name, func(t *testing.T) {
			known := initReply(128<<10, flags)
			s, err := session.New(sessiontest.New(), int(null.Fd()), initRequest(), session.Options{InitReply: known})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if !bytes.Equal(s.InitReply(), known) {
				t.Error("the answer is another one")
			}
		})
	}
}
