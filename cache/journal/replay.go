package journal

import (
	"errors"
	"io"
)

// window is how much of the file a replay holds, unless one record is longer.
const window = 256 << 10

// scanner finds the records of a file, one after the other.
type scanner struct {
	file io.ReaderAt
	form form
	at   int64 // where it looks
	to   int64 // where it stops

	buf  []byte // of the file, from the offset from
	from int64
	room []byte // that buf lies in
	sum  sumRoom
}

func newScanner(f io.ReaderAt, form form, at, to int64) *scanner {
	return &scanner{file: f, form: form, at: at, to: to, from: at, room: make([]byte, min(window, to-at))}
}

// peek returns n bytes from at on, or as many as there are.
func (s *scanner) peek(n int) ([]byte, error) {
	n = int(min(int64(n), s.to-s.at))
	have := s.buf[min(s.at-s.from, int64(len(s.buf))):]
	if len(have) >= n {
		return have[:n], nil
	}
	room := s.room
	if len(room) < n {
		room = make([]byte, n+window)
	}
	copy(room, have)
	want := room[len(have):min(int64(len(room)), s.to-s.at)]
	m, err := s.file.ReadAt(want, s.at+int64(len(have)))
	if err != nil && (m < len(want) || !errors.Is(err, io.EOF)) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // it was longer a moment ago
		}
		return nil, err
	}
	s.buf, s.from = room[:len(have)+m], s.at
	return s.buf[:n], nil
}

// each gives every record to f and returns where the next one is to be written,
// and how many bytes before that cannot be read though they were written: they may
// have been acknowledged. What follows the last record is none of those when it says
// of itself that it is not (tape). The payload is f's only until it returns.
func (s *scanner) each(f func(payload []byte) error) (end, damaged int64, err error) {
	head := s.form.head()
	end = s.at
	for s.at < s.to {
		b, err := s.peek(head)
		if err != nil {
			return 0, 0, err
		}
		if len(b) < head {
			if s.at > end {
				s.at = s.to
			}
			break
		}
		n, refused, ok := s.form.length(&s.sum, b, s.at)
		if ok && s.at+int64(head+n) > s.to {
			if s.form.version > 1 {
				break // torn: nothing can stand behind it
			}
			ok = false
		}
		if ok && refused {
			if s.at+int64(head+n) == s.to {
				break
			}
			ok = false // something stands behind it
		}
		if !ok {
			s.at++
			continue
		}
		if b, err = s.peek(head + n); err != nil {
			return 0, 0, err
		}
		switch payload := b[head:]; {
		case s.form.intact(b, payload):
			damaged += s.at - end
			if err := f(payload); err != nil {
				return 0, 0, err
			}
			spoil(payload)
		case s.form.version > 1: // its length is known to be right
			damaged += s.at - end + int64(head+n)
		default:
			s.at++
			continue
		}
		s.at += int64(head + n)
		end = s.at
	}
	if s.form.version == 1 { // its tail says nothing of itself
		if s.to-end > int64(head+maxBytes) { // more than one write can have left
			return s.to, damaged + s.to - end, nil
		}
		return end, damaged, nil
	}
	// Behind what is damaged, but over what is no record: its head would hide the
	// next one.
	return s.at, damaged + s.at - end, nil
}
