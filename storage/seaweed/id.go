package seaweed

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Stored bytes have several names on the wire: "3,1637037d6" and "3,01637037d6"
// are the same, the third id of an assignment is "3,01637037d6_2" or a key that
// is greater by two, and the filer keeps numbers. Everything above this package
// compares ids as strings (the cache's key, what a commit frees), so there is
// one form: SeaweedFS's own, whole bytes in hexadecimal, no leading zero bytes.
// An id in another form named the same chunk twice.

// wireID is an id in numbers.
type wireID struct {
	volume uint32
	key    uint64
	cookie uint32
}

// cookieDigits of an id are its last ones.
const cookieDigits = 8

// parseID reads any form.
func parseID(s string) (wireID, error) {
	bad := func() (wireID, error) {
		return wireID{}, storage.Errorf(storage.Corrupt, "chunk id %q: must be VOLUME,KEYCOOKIE", s)
	}
	volume, rest, ok := strings.Cut(s, ",")
	if !ok {
		return bad()
	}
	rest, delta, run := strings.Cut(rest, "_")
	if len(rest) <= cookieDigits {
		return bad()
	}
	v, errV := strconv.ParseUint(volume, 10, 32)
	key, errK := strconv.ParseUint(rest[:len(rest)-cookieDigits], 16, 64)
	cookie, errC := strconv.ParseUint(rest[len(rest)-cookieDigits:], 16, 32)
	if errV != nil || errK != nil || errC != nil {
		return bad()
	}
	if run {
		d, err := strconv.ParseUint(delta, 10, 32)
		if err != nil {
			return bad()
		}
		key += d
	}
	return wireID{uint32(v), key, uint32(cookie)}, nil
}

// String is the one form.
func (w wireID) String() string {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], w.key)
	binary.BigEndian.PutUint32(b[8:], w.cookie)
	digits := b[:]
	for len(digits) > 4 && digits[0] == 0 {
		digits = digits[1:]
	}
	return strconv.FormatUint(uint64(w.volume), 10) + "," + hex.EncodeToString(digits)
}

// chunkID gives the one form of the id of a chunk on the wire. What cannot be
// parsed stays as it is, and is refused when it is read.
func chunkID(c *filerpb.FileChunk) storage.ChunkID {
	if f := c.GetFid(); f != nil {
		return storage.ChunkID(wireID{f.GetVolumeId(), f.GetFileKey(), f.GetCookie()}.String())
	}
	id, err := parseID(c.GetFileId())
	if err != nil {
		return storage.ChunkID(c.GetFileId())
	}
	return storage.ChunkID(id.String())
}

// volumeOf cuts "3,01637037d6" to "3".
func volumeOf(id storage.ChunkID) (string, error) {
	v, _, ok := strings.Cut(string(id), ",")
	if !ok || v == "" {
		return "", storage.Errorf(storage.Corrupt, "chunk id %q: must be VOLUME,KEYCOOKIE", id)
	}
	return v, nil
}
