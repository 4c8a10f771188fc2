package fuse

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// lossy is a store whose answers to updates get lost.
type lossy struct {
	storage.Files
	mu sync.Mutex
	// next is what becomes of the coming updates, one after the other.
	next []fate
	// late are updates that are on their way still.
	late []func() error
}

type fate int

const (
	answered fate = iota
	answerLost
	requestLost
	requestLate
)

func (l *lossy) Update(ctx context.Context, p storage.Path, e storage.Entry) (storage.Entry, error) {
	l.mu.Lock()
	f := answered
	if len(l.next) > 0 {
		f, l.next = l.next[0], l.next[1:]
	}
	if f == requestLate {
		e := e.Clone()
		l.late = append(l.late, func() error {
			_, err := l.Files.Update(context.WithoutCancel(ctx), p, e)
			return err
		})
	}
	l.mu.Unlock()
	lost := storage.Errorf(storage.Unavailable, "no answer")
	switch f {
	case answerLost:
		if _, err := l.Files.Update(ctx, p, e); err != nil {
			return storage.Entry{}, err
		}
		return storage.Entry{}, lost
	case requestLost, requestLate:
		return storage.Entry{}, lost
	default:
		return l.Files.Update(ctx, p, e)
	}
}

func (l *lossy) expect(f ...fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = f
}

// arrive lets what was late arrive. It reports how many were carried out.
func (l *lossy) arrive() (done int) {
	l.mu.Lock()
	late := l.late
	l.late = nil
	l.mu.Unlock()
	for _, carryOut := range late {
		if carryOut() == nil {
			done++
		}
	}
	return done
}

// TestCommitIsDoneOnce: a commit is carried out, and the mounter dies before it
// hears so, or loses the connection. Then another mount writes over it. What it
// wrote must stay; what was written here since is committed.
func TestCommitIsDoneOnce(t *testing.T) {
	for _, dies := range []bool{true, false} {
		for _, size := range []int{100, 20 << 10, 300 << 10} {
			t.Run(fmt.Sprintf("dies=%v/%d", dies, size), func(t *testing.T) {
				bucket := memory.NewBucket(1 << 30)
				v := bucket.Volume()
				store := &lossy{Files: v.Files}
				v.Files = store
				a, b := begin(t, v), mount(t, bucket.Volume())
				id, st := a.create(1, "f")
				a.ok("create", st)
				a.ok("write", a.write(id, bytes.Repeat([]byte{'a'}, size), 0))
				store.expect(answerLost)
				if st := a.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}); st != gofuse.EIO {
					t.Errorf("fsync without an answer: %v", st)
				}
				a.ok("write", a.write(id, []byte("since"), int64(size)))
				theirs, st := b.lookup(1, "f")
				b.ok("lookup", st)
				b.ok("open", b.open(theirs))
				b.ok("write", b.write(theirs, []byte("foreign"), 10))
				b.ok("close", b.close(theirs))
				if dies {
					a = a.crash(false)
				}
				a.ok("fsync", a.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
				want := append(bytes.Repeat([]byte{'a'}, size), "since"...)
				copy(want[10:], "foreign")
				for _, c := range []*caller{a, b} {
					n, st := c.lookup(1, "f")
					c.ok("lookup", st)
					c.ok("open", c.open(n))
					if got := c.read(n, 0, 1<<20); !bytes.Equal(got, want) {
						t.Errorf("reads %q…, %d bytes, want %d", got[:min(30, len(got))], len(got), len(want))
					}
					c.ok("close", c.close(n))
				}
				checkChunks(t, bucket, "f")
				if err := a.fs.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// checkChunks demands that the store keeps what a file shows and nothing else.
func checkChunks(t *testing.T, bucket *memory.Bucket, p storage.Path) {
	t.Helper()
	e, err := bucket.Volume().Files.Lookup(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got := bucket.ChunkCount(); got != len(e.Chunks) {
		t.Errorf("%d chunks are kept, %d are used", got, len(e.Chunks))
	}
}

// TestCommitModel writes to a file by two mounts at random. One of them loses
// answers and requests, some requests arrive late, and it dies in between. In
// the end the file is what it would be with every commit carried out once.
func TestCommitModel(t *testing.T) {
	for _, limit := range []int64{4096, 60 << 10, 300 << 10} {
		for range 4 {
			seed := rand.Uint64()
			t.Run(fmt.Sprintf("%d/%d", limit, seed), func(t *testing.T) { commitModel(t, limit, seed) })
		}
	}
}

func commitModel(t *testing.T, limit int64, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	bucket := memory.NewBucket(1 << 30)
	v := bucket.Volume()
	store := &lossy{Files: v.Files}
	v.Files = store
	a, b := begin(t, v), mount(t, bucket.Volume())
	id, st := a.create(1, "f")
	a.ok("create", st)
	var model []byte
	// ours is what the first mount has done and not committed.
	var ours []func([]byte) []byte
	commit := func() {
		for _, do := range ours {
			model = do(model)
		}
		ours = nil
	}
	// late remembers what a late request would bring.
	type request struct{ ours int }
	var late []request
	change := func() (do func([]byte) []byte, on func(c *caller, id uint64)) {
		off := rng.Int64N(limit)
		if rng.IntN(5) == 0 {
			return func(m []byte) []byte {
					return append(m[:min(off, int64(len(m))):min(off, int64(len(m)))], make([]byte, max(0, off-int64(len(m))))...)
				}, func(c *caller, id uint64) {
					c.ok("truncate", c.truncate(id, off))
				}
		}
		data := make([]byte, 1+rng.Int64N(limit/4))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		return func(m []byte) []byte {
				m = append(bytes.Clone(m), make([]byte, max(0, off+int64(len(data))-int64(len(m))))...)
				copy(m[off:], data)
				return m
			}, func(c *caller, id uint64) {
				c.ok("write", c.write(id, data, off))
			}
	}
	for range 60 {
		switch rng.IntN(7) {
		case 0:
			a = a.crash(false)
		case 1: // the other mount: open, change, close
			do, on := change()
			theirs, st := b.lookup(1, "f")
			b.ok("lookup", st)
			b.ok("open", b.open(theirs))
			on(b, theirs)
			b.ok("close", b.close(theirs))
			model = do(model)
		case 2: // what is late arrives: of several, the first that fits
			if store.arrive() > 0 {
				rest := ours[late[0].ours:]
				ours = ours[:late[0].ours]
				commit()
				ours = rest
			}
			late = nil
		case 3:
			f := fate(rng.IntN(4))
			if f == requestLate && len(late) > 0 {
				f = requestLost // one at a time
			}
			store.expect(f)
			st := a.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)})
			sent := len(store.next) == 0
			store.expect()
			switch {
			case !sent: // nothing to commit, or a commit that was carried out before
				a.ok("fsync", st)
				commit()
			case f == answered:
				a.ok("fsync", st)
				commit()
				late = nil
			case st.Ok() && f != answerLost:
				t.Fatalf("seed %d: fsync succeeded without an answer", seed)
			case f == answerLost: // or its condition failed, and the next one was answered
				commit()
			case f == requestLate:
				late = append(late, request{len(ours)})
			}
			if st.Ok() {
				late = nil
			}
		default:
			do, on := change()
			on(a, id)
			ours = append(ours, do)
		}
	}
	a.ok("fsync", a.fs.Fsync(nil, &gofuse.FsyncIn{InHeader: header(id)}))
	commit()
	if store.arrive() != 0 {
		t.Errorf("seed %d: a late request was carried out after a newer one", seed)
	}
	theirs, st := b.lookup(1, "f")
	b.ok("lookup", st)
	b.ok("open", b.open(theirs))
	if got := b.read(theirs, 0, 2*limit); !bytes.Equal(got, model) {
		at := 0
		for at < min(len(got), len(model)) && got[at] == model[at] {
			at++
		}
		t.Errorf("seed %d: %d bytes differ from the model's %d at %d", seed, len(got), len(model), at)
	}
	b.ok("close", b.close(theirs))
	checkChunks(t, bucket, "f")
	if err := a.fs.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
