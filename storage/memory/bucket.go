package memory

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// Bucket is one bucket in memory: names, chunks and changes. It passes the suite
// that the real cluster passes, so a test may stand on either.
type Bucket struct {
	mu struct {
		sync.Mutex
		entries  map[storage.Path]*file
		chunks   map[storage.ChunkID][]byte
		watchers map[int]watcher
		orphans  map[storage.Orphan]storage.Entry
		// last numbers chunks, watchers and versions.
		last     int
		capacity int64
	}
}

// file is what names point to: hard links share one.
type file struct {
	entry   storage.Entry
	version int
}

// origin is what Entry.Origin holds here.
type origin struct{ version int }

type watcher struct {
	each   func(storage.Event)
	handle *Handle
}

// NewBucket returns an empty bucket with a root, of the given capacity in bytes.
func NewBucket(capacity int64) *Bucket {
	b := &Bucket{}
	b.mu.capacity = capacity
	b.mu.entries = map[storage.Path]*file{"": {entry: storage.Entry{Mode: fs.ModeDir | 0o777, Native: true, Inode: 1}}}
	b.mu.chunks = map[storage.ChunkID][]byte{}
	b.mu.watchers = map[int]watcher{}
	b.mu.orphans = map[storage.Orphan]storage.Entry{}
	return b
}

// Handle is one client's view of a bucket: it is not told of its own changes.
type Handle struct{ b *Bucket }

// Volume returns the contracts for one more client.
func (b *Bucket) Volume() storage.Volume {
	h := &Handle{b}
	return storage.Volume{Files: h, Orphans: h, Chunks: h, Watcher: h, Meter: h}
}

var (
	_ storage.Files   = (*Handle)(nil)
	_ storage.Orphans = (*Handle)(nil)
	_ storage.Watcher = (*Handle)(nil)
	_ storage.Meter   = (*Handle)(nil)
)

// getLocked returns the file at p, with the errors of a path walk.
func (b *Bucket) getLocked(p storage.Path) (*file, error) {
	f, ok := b.mu.entries[p]
	if !ok {
		return nil, storage.Errorf(storage.NotFound, "%q: no such entry", p)
	}
	return f, nil
}

// showLocked gives f as it is seen under p.
func (b *Bucket) showLocked(p storage.Path, f *file) storage.Entry {
	e := f.entry.Clone()
	_, e.Name = p.Split()
	e.Origin, e.Held = origin{f.version}, storage.Holds(&e)
	return e
}

func (b *Bucket) parentLocked(p storage.Path) error {
	dir, _ := p.Split()
	up, err := b.getLocked(dir)
	if err != nil {
		return err
	}
	if !up.entry.IsDir() {
		return storage.Errorf(storage.NotDirectory, "%q: not a directory", dir)
	}
	return nil
}

func (b *Bucket) nextLocked() int {
	b.mu.last++
	return b.mu.last
}

// Lookup implements storage.Files.
func (h *Handle) Lookup(ctx context.Context, p storage.Path) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.getLocked(p)
	if err != nil {
		return storage.Entry{}, err
	}
	return h.b.showLocked(p, f), nil
}

// List implements storage.Files.
func (h *Handle) List(ctx context.Context, p storage.Path, after string, limit int) ([]storage.Entry, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.getLocked(p)
	if err != nil {
		return nil, err
	}
	if !f.entry.IsDir() {
		return nil, storage.Errorf(storage.NotDirectory, "%q: not a directory", p)
	}
	var out []storage.Entry
	for q, child := range h.b.mu.entries {
		if dir, name := q.Split(); q != "" && dir == p && name > after {
			out = append(out, h.b.showLocked(q, child))
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out[:min(limit, len(out))], nil
}

// Create implements storage.Files.
func (h *Handle) Create(ctx context.Context, p storage.Path, e storage.Entry, _ bool) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	if err := h.b.parentLocked(p); err != nil {
		return storage.Entry{}, err
	}
	if _, ok := h.b.mu.entries[p]; ok {
		return storage.Entry{}, storage.Errorf(storage.Exists, "%q: exists", p)
	}
	f := &file{entry: e.Clone(), version: h.b.nextLocked()}
	h.b.mu.entries[p] = f
	shown := h.b.showLocked(p, f)
	h.tellLocked(storage.Event{New: storage.PlaceOf(p, &shown)})
	return shown, nil
}

// Update implements storage.Files.
func (h *Handle) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	if ctx.Err() != nil {
		return storage.Entry{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	f, err := h.b.sameLocked(p, e)
	if err != nil {
		return storage.Entry{}, err
	}
	h.b.dropLocked(f.entry, e)
	was := h.b.showLocked(p, f)
	f.entry, f.version = e.Clone(), h.b.nextLocked()
	now := h.b.showLocked(p, f)
	h.tellLocked(storage.Event{Old: storage.PlaceOf(p, &was), New: storage.PlaceOf(p, &now)})
	return now, nil
}

// dropLocked frees the chunks that next no longer has.
func (b *Bucket) dropLocked(was, next storage.Entry) {
	for _, c := range was.Chunks {
		if !slices.ContainsFunc(next.Chunks, func(n storage.Chunk) bool { return n.ID == c.ID }) {
			delete(b.mu.chunks, c.ID)
		}
	}
}

// Write implements storage.Chunks.
func (h *Handle) Write(ctx context.Context, _ storage.Path, data []byte) (storage.Chunk, error) {
	if ctx.Err() != nil {
		return storage.Chunk{}, ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	id := storage.ChunkID(fmt.Sprintf("1,%x", h.b.nextLocked()))
	h.b.mu.chunks[id] = slices.Clone(data)
	return storage.Chunk{ID: id, Size: int64(len(data))}, nil
}

// Read implements storage.Chunks.
func (h *Handle) Read(ctx context.Context, c storage.Chunk, p []byte, off int64) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	data, ok := h.b.mu.chunks[c.ID]
	if !ok {
		return storage.Errorf(storage.NotFound, "chunk %s: gone", c.ID)
	}
	if off < 0 || off+int64(len(p)) > int64(len(data)) {
		return storage.Errorf(storage.Corrupt, "chunk %s: %d bytes at %d of %d", c.ID, len(p), off, len(data))
	}
	copy(p, data[off:])
	return nil
}

// Delete implements storage.Chunks.
func (h *Handle) Delete(_ context.Context, ids []storage.ChunkID) error {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	for _, id := range ids {
		delete(h.b.mu.chunks, id)
	}
	return nil
}

// Watch implements storage.Watcher. each is called under the bucket's lock: it
// must not call back.
func (h *Handle) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	h.b.mu.Lock()
	id := h.b.nextLocked()
	h.b.mu.watchers[id] = watcher{each, h}
	h.b.mu.Unlock()
	ready()
	<-ctx.Done()
	h.b.mu.Lock()
	delete(h.b.mu.watchers, id)
	h.b.mu.Unlock()
	return ctx.Err()
}

func (h *Handle) tellLocked(ev storage.Event) {
	for _, w := range h.b.mu.watchers {
		if w.handle != h {
			w.each(ev)
		}
	}
}

// Usage implements storage.Meter.
func (h *Handle) Usage(context.Context) (storage.Usage, error) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	u := storage.Usage{Capacity: h.b.mu.capacity}
	for _, c := range h.b.mu.chunks {
		u.Used += int64(len(c))
	}
	return u, nil
}

// Size implements storage.Meter.
func (h *Handle) Size(ctx context.Context) (int64, error) {
	h.b.mu.Lock()
	defer h.b.mu.Unlock()
	return h.b.mu.capacity, ctx.Err()
}

// Expand makes the bucket larger.
func (b *Bucket) Expand(capacity int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.capacity = capacity
}

// ChunkCount is the number of chunks kept, for tests of leaks.
func (b *Bucket) ChunkCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.mu.chunks)
}
