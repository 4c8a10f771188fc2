package fuse

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

// The sum outlives the mounter, in a file of a few bytes that is written over in
// the page cache with each change: the next one goes on with it while it surveys the
// volume. In the journal it would be one more record for each change, of others too.

const (
	// roomFile in the volume's folder.
	roomFile = "room"
	// roomBytes are the size of the volume, the sum, and a checksum of both.
	roomBytes = 8 + 8 + 4
)

// keptRoom is that file.
type keptRoom struct{ file *os.File }

// keepLocked writes the sum down. One that is not counted is worth nothing to the
// next mounter, nor is one that cannot be written.
func (r *room) keepLocked() {
	if r.mu.kept == nil || r.mu.basis != surveyed {
		return
	}
	var b [roomBytes]byte
	binary.LittleEndian.PutUint64(b[:], uint64(r.mu.size))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.mu.stored))
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:16]))
	_, _ = r.mu.kept.file.WriteAt(b[:], 0) // a torn one has another checksum
}

// open begins to keep the sum in dir. With inherit it begins with what the mounter
// before knew.
func (r *room) open(dir string, inherit bool) error {
	f, err := os.OpenFile(filepath.Join(dir, roomFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return localError(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.kept = &keptRoom{f}
	var b [roomBytes]byte
	_, err = f.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		r.mu.kept = nil
		return errors.Join(localError(err), f.Close())
	}
	size, stored := int64(binary.LittleEndian.Uint64(b[:])), int64(binary.LittleEndian.Uint64(b[8:]))
	if !inherit || err != nil || size == 0 || crc32.ChecksumIEEE(b[:16]) != binary.LittleEndian.Uint32(b[16:]) {
		if _, err := f.WriteAt(make([]byte, roomBytes), 0); err != nil {
			r.mu.kept = nil
			return errors.Join(localError(err), f.Close())
		}
		return nil
	}
	r.mu.size, r.mu.sizeAt = size, time.Unix(1, 0) // long ago: it is asked for again before anything is refused
	r.surveyedLocked(stored)
	return nil
}

// close gives the descriptor back.
func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.kept != nil {
		_ = r.mu.kept.file.Close() // nothing to lose
		r.mu.kept = nil
	}
}

// remove ends it, with the volume's folder.
func (r *room) remove(dir string) error {
	r.close()
	err := os.Remove(filepath.Join(dir, roomFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
