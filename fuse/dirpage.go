package fuse

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/holdfast-csi/holdfast/storage"
)

// dirPage are names that were read at once. The cookie of the first one is first.
type dirPage struct {
	first uint64
	// They lie behind after and up to last.
	after, last string
	hashes      []uint64
}

func hashes(entries []storage.Entry) []uint64 {
	out := make([]uint64, 0, len(entries))
	for _, e := range entries {
		h := fnv.New64a()
		_, _ = h.Write([]byte(e.Name)) // never fails
		out = append(out, h.Sum64())
	}
	return out
}

// end is the first cookie behind the page.
func (p *dirPage) end() uint64 { return p.first + uint64(len(p.hashes)) }

// record is a page written down: its first cookie, the name before it, the length of
// its last name, that name, and the hashes.
func (p *dirPage) record(fh uint64) record {
	data := make([]byte, 0, len(p.last)+8*len(p.hashes))
	data = append(data, p.last...)
	for _, h := range p.hashes {
		data = binary.LittleEndian.AppendUint64(data, h)
	}
	return record{kind: recPage, id: fh, a: p.first, b: uint64(len(p.last)), name: p.after, data: data}
}

// inherit takes a page of the mounter before.
func (d *dirStreams) inherit(r record) error {
	if r.b > uint64(len(r.data)) || (uint64(len(r.data))-r.b)%8 != 0 {
		return storage.Errorf(storage.Corrupt, "a page of a directory: %d bytes, a name of %d", len(r.data), r.b)
	}
	p := dirPage{first: r.a, after: r.name, last: string(r.data[:r.b])}
	for b := r.data[r.b:]; len(b) > 0; b = b[8:] {
		p.hashes = append(p.hashes, binary.LittleEndian.Uint64(b))
	}
	s := d.get(r.id)
	if n := len(s.pages); n > 0 && s.pages[n-1].first >= p.first {
		return nil // written twice, by a compaction
	}
	s.pages = append(s.pages, p)
	return nil
}

// forget drops the pages of a handle in a replay, and of all for a new session.
func (d *dirStreams) forget(fh uint64) { delete(d.open, fh) }

func (d *dirStreams) forgetAll() { clear(d.open) }

// live emits the pages, for a compaction.
func (d *dirStreams) live(put func(record) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for fh, s := range d.open {
		for _, p := range s.pages {
			if err := put(p.record(fh)); err != nil {
				return err
			}
		}
	}
	return nil
}
