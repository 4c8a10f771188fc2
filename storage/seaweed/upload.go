package seaweed

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"net/http"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// castagnoli is the polynomial of the checksum that volume servers keep with
// each chunk, answer to an upload and check at each read.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// upload stores data and makes sure that the server has what was sent: its
// checksum comes with the answer. That costs a twentieth of an MD5, which is sent
// along only after something went wrong, and then decides: a server that stores
// the bytes in another form (compressed) answers a checksum of that form.
func (s *chunks) upload(ctx context.Context, to target, data []byte, again bool) error {
	url := s.url(to.at, to.path)
	if to.fsync {
		url += "?fsync=true"
	}
	bounded, done, err := allowed(ctx, s.guard)
	if err != nil {
		return err
	}
	defer done()
	req, err := http.NewRequestWithContext(bounded, http.MethodPut, url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	// With a type of its own a chunk is stored as it is; without, what looks
	// compressible is compressed, and each small read expands all of it.
	req.Header.Set("Content-Type", "application/octet-stream")
	if again {
		sum := md5.Sum(data)
		req.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
	}
	authorize(req, to.auth)
	resp, err := s.volumes.RoundTrip(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer drain(resp)
	switch resp.StatusCode {
	case http.StatusCreated, http.StatusNoContent, http.StatusOK:
	default:
		return refusedUpload(answered(resp), to.auth != "" && !again)
	}
	want := fmt.Sprintf("%08x", crc32.Checksum(data, castagnoli))
	if got := strings.Trim(resp.Header.Get("Etag"), `"`); got != want && !again {
		return storage.Errorf(storage.Unavailable, "volume server stored %s with checksum %q, want %q", to.id, got, want)
	}
	return nil
}

// refusedUpload decides what another assignment may mend: a volume that is not
// where the master thinks, bytes that were damaged on their way, and, once, a
// token that ended meanwhile.
func refusedUpload(err error, signed bool) error {
	switch k := storage.KindOf(err); {
	case k == storage.NotFound, k == storage.Invalid, k == storage.Denied && signed:
		return storage.Errorf(storage.Unavailable, "upload refused: %w", err)
	default:
		return err
	}
}
