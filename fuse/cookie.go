package fuse

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// Cookies of open directories. A cookie says which name was read last; whoever
// comes back with it, at once, by seekdir(3), or after the mounter has died, goes on
// behind that name: no name that was there all the time is left out or read twice,
// whatever was made or removed meanwhile.
//
// The store lists by name, so a position is a name, and a name does not fit into 63
// bits. Indexes into the names as they were read were the design that lost: the next
// mounter reads others. Here a cookie is a number that its handle never gives twice,
// and for each page that was read stands written down, in the journal as well,
// between which names it lies and a hash of each name: eight bytes for a name, so a
// directory of a million names takes 8 MB while it is read to its end. When a cookie
// of a page that is not at hand comes back, the page is read again, and it goes on
// behind the last name that is still there of those up to the cookie.

// listPage is how many names are asked for at once.
const listPage = 1000

// Cookies 1 and 2 follow "." and "..".
const (
	afterDot    = 1
	afterDotDot = 2
)

// dirStreams are the open directories, by handle.
type dirStreams struct {
	memo *memo
	mu   sync.Mutex
	open map[uint64]*dirStream
	last uint64
}

// dirStream is one of them. Its fields are under mu, but for pages, which the
// journal's compaction reads too: they are changed under dirStreams.mu as well.
type dirStream struct {
	mu    sync.Mutex
	pages []dirPage
	// entries are the names of a page, with what the store said of them, and first
	// the cookie of the first one.
	entries []storage.Entry
	first   uint64
	// asked is the question that entries are the answer to.
	asked *ask
	// ended: nothing follows them.
	ended bool
}

func newDirStreams(m *memo) *dirStreams {
	// Handles of the mounter before are open still: a number that it has not given.
	return &dirStreams{memo: m, open: map[uint64]*dirStream{}, last: rand.Uint64() >> 2}
}

func (d *dirStreams) add() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.open[d.last] = &dirStream{}
	return d.last
}

func (d *dirStreams) get(fh uint64) *dirStream {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.open[fh]
	if s == nil { // opened before the mounter was restarted, and not read
		s = &dirStream{}
		d.open[fh] = s
	}
	return s
}

func (d *dirStreams) remove(t *table, fh uint64) {
	d.mu.Lock()
	s := d.open[fh]
	d.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.rewind(t, fh, s)
	d.mu.Lock()
	delete(d.open, fh)
	d.mu.Unlock()
}

// rewind forgets what was read. The caller holds s.mu.
func (d *dirStreams) rewind(t *table, fh uint64, s *dirStream) {
	d.mu.Lock()
	if len(s.pages) > 0 {
		d.memo.note(record{kind: recRewound, id: fh})
	}
	s.pages = nil
	d.mu.Unlock()
	s.entries, s.first, s.ended = nil, 0, false
	s.ask(t, nil)
}

// ask ends the question of the page before.
func (s *dirStream) ask(t *table, next *ask) {
	if s.asked != nil {
		t.answered(s.asked)
	}
	s.asked = next
}

// turn puts the names that follow after in the place of those at hand. It notes
// where they lie before anybody is given a cookie of them.
func (d *dirStreams) turn(fh uint64, s *dirStream, after string, entries []storage.Entry, ended bool) {
	s.entries, s.first, s.ended = entries, 0, ended
	if len(entries) == 0 {
		return
	}
	p := dirPage{first: afterDotDot + 1, after: after, hashes: hashes(entries)}
	p.last = entries[len(entries)-1].Name
	for _, same := range s.pages { // read before, by somebody who came back
		if same.after == after && slices.Equal(same.hashes, p.hashes) {
			s.first = same.first
			return
		}
	}
	if n := len(s.pages); n > 0 {
		p.first = s.pages[n-1].end()
	}
	d.memo.note(p.record(fh))
	d.mu.Lock()
	s.pages = append(s.pages, p)
	d.mu.Unlock()
	s.first = p.first
}

// page finds the page of a cookie.
func (s *dirStream) page(cookie uint64) *dirPage {
	i, found := slices.BinarySearchFunc(s.pages, cookie, func(p dirPage, c uint64) int {
		switch {
		case c < p.first:
			return 1
		case c >= p.end():
			return -1
		}
		return 0
	})
	if !found {
		return nil
	}
	return &s.pages[i]
}

// seek puts the names that follow a cookie at hand, and returns how many of
// entries come before them.
func (fs *FS) seek(ctx context.Context, n *node, fh uint64, s *dirStream, cookie uint64) (skip int, err error) {
	start := cookie == afterDotDot
	if start && (s.first == afterDotDot+1 || len(s.pages) == 0 && s.ended) {
		return 0, nil
	}
	if i := cookie - s.first + 1; cookie >= s.first && i < uint64(len(s.entries)) {
		return int(i), nil //nolint:gosec // less than a page
	}
	p := s.page(cookie)
	after := ""
	switch {
	case p == nil: // none was read yet, or it is not one of ours
	case cookie == p.end()-1:
		if s.ended && s.first == p.first {
			return len(s.entries), nil
		}
		after = p.last
	default: // it came back
		if err := fs.readPage(ctx, n, fh, s, p.after); err != nil {
			return 0, err
		}
		if s.first == p.first { // nothing was changed
			return int(cookie - p.first + 1), nil //nolint:gosec // less than a page
		}
		if after, err = fs.behind(ctx, n, p, cookie); err != nil {
			return 0, err
		}
	}
	return 0, fs.readPage(ctx, n, fh, s, after)
}

// readPage puts the names that follow after at hand.
func (fs *FS) readPage(ctx context.Context, n *node, fh uint64, s *dirStream, after string) error {
	s.entries, s.first, s.ended = nil, 0, false
	s.ask(fs.table, fs.table.ask())
	entries, ended, err := fs.listPage(ctx, n, after)
	if err != nil {
		return err
	}
	fs.dirs.turn(fh, s, after, entries, ended)
	return nil
}

// behind returns the last name that is still there of those of a page up to a
// cookie.
func (fs *FS) behind(ctx context.Context, n *node, p *dirPage, cookie uint64) (string, error) {
	given := map[uint64]bool{}
	for _, h := range p.hashes[:cookie-p.first+1] {
		given[h] = true
	}
	at, after := p.after, p.after
	for {
		page, ended, err := fs.listPage(ctx, n, after)
		if err != nil {
			return "", err
		}
		for i, h := range hashes(page) {
			after = page[i].Name
			if after > p.last {
				return at, nil
			}
			if given[h] {
				at = after
			}
		}
		if ended {
			return at, nil
		}
	}
}

// listPage reads names that follow after: some, or the end.
func (fs *FS) listPage(ctx context.Context, n *node, after string) (page []storage.Entry, ended bool, err error) {
	p, done, err := fs.at(ctx, n)
	if err != nil {
		return nil, false, err
	}
	defer done()
	for {
		all, err := fs.vol.Files.List(ctx, p, after, listPage)
		if err != nil {
			return nil, false, err
		}
		for _, e := range all {
			after = e.Name
			if storage.CheckName(e.Name) == nil { // the others cannot be files
				page = append(page, e)
			}
		}
		if ended = len(all) < listPage; ended || len(page) > 0 {
			return page, ended, nil
		}
	}
}
