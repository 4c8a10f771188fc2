package seaweed

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// Ids for new chunks come from the master, through the filer, and asking costs
// as much as storing a small chunk. So small chunks share assignments: one call
// gives a run of ids on one volume. Large ones ask each for themselves: the call
// is nothing beside the upload, and parallel uploads spread over the servers.
//
// An id is used once, whatever becomes of the upload, since a volume server lets
// a second one overwrite the first. Ids that are not used cost nothing.

const (
	// runLength is how many ids one call gives: two thousand small files need
	// sixty calls, and a volume that went away wastes at most this many.
	runLength = 32
	// runSize is the greatest chunk that shares an assignment.
	runSize = 256 << 10
	// runAge bounds how long a run lives, since the master may have made its
	// volume read-only, or moved it, or the filer's rules may have changed.
	runAge = 10 * time.Second
	// signedAge is the same where an assignment comes with a token, which the
	// volume servers honour for ten seconds, unless they are told otherwise.
	signedAge = 5 * time.Second
	// someName stands for a file where none is meant: the filer's rules are for what is
	// below a root, not for the root.
	someName = "file"
)

// target is where one chunk is to be uploaded.
type target struct {
	id     storage.ChunkID
	volume string
	at     holder
	path   string // the id as the token, when there is one, names it
	auth   string
	fsync  bool
	run    *run
}

// run is what one assignment gave.
type run struct {
	first  wireID
	answer *filerpb.AssignVolumeResponse
	until  time.Time
	used   int
}

// target takes the next id. A token is made out for the first id and honoured
// for id_1, id_2 and so on too, but not for the same ids in the one form.
func (r *run) target() target {
	id := r.first
	id.key += uint64(r.used)
	t := target{
		id: storage.ChunkID(id.String()), volume: fmt.Sprint(id.volume),
		at: holderOf(r.answer.GetLocation()), path: r.answer.GetFileId(),
		auth: r.answer.GetAuth(), fsync: r.answer.GetFsync(), run: r,
	}
	if r.used > 0 {
		t.path = fmt.Sprintf("%s_%d", t.path, r.used)
	}
	r.used++
	return t
}

// spent reports whether a new assignment is due.
func (r *run) spent(now time.Time) bool {
	return r == nil || r.used >= max(int(r.answer.GetCount()), 1) || now.After(r.until)
}

// assigner gives out the ids of one volume. All files of it share a run, so a rule
// in the filer's configuration for a folder within it would not be seen by small
// chunks; Holdfast makes rules for roots of volumes alone.
type assigner struct {
	// ask makes one call.
	ask func(ctx context.Context, r *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error)
	// bucket is the collection too.
	bucket storage.BucketName
	// root is where the volume lies, and what the filer finds its rules by.
	root string
	// turn is held by the one that asks for a new run; others wait for it, or for
	// their contexts.
	turn chan struct{}

	mu struct {
		sync.Mutex
		// run is the present one. INVARIANT: used only ever grows.
		run *run
	}
}

func newAssigner(bucket storage.BucketName, root string, ask func(context.Context, *filerpb.AssignVolumeRequest) (*filerpb.AssignVolumeResponse, error)) *assigner {
	return &assigner{ask: ask, bucket: bucket, root: root, turn: make(chan struct{}, 1)}
}

// take gives an id for size bytes of the file at near.
func (a *assigner) take(ctx context.Context, near storage.Path, size int) (target, error) {
	if size > runSize {
		r, err := a.assign(ctx, near, 1, size)
		if err != nil {
			return target{}, err
		}
		return r.target(), nil
	}
	if t, ok := a.next(); ok {
		return t, nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return target{}, ctx.Err()
	}
	if t, ok := a.next(); ok { // the one before brought it
		return t, nil
	}
	r, err := a.assign(ctx, near, runLength, size)
	if err != nil {
		return target{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.run = r
	return r.target(), nil
}

func (a *assigner) next() (target, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.run.spent(time.Now()) {
		return target{}, false
	}
	return a.mu.run.target(), true
}

// drop gives a run up: its volume refused a chunk or was not there.
func (a *assigner) drop(r *run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.run == r {
		a.mu.run = nil
	}
}

func (a *assigner) assign(ctx context.Context, near storage.Path, count int32, size int) (*run, error) {
	asked := time.Now()
	r, err := a.ask(ctx, &filerpb.AssignVolumeRequest{
		Count: count, Collection: string(a.bucket),
		Path:             path.Join(a.root, cmp.Or(string(near), someName)),
		ExpectedDataSize: uint64(size),
	})
	if err != nil {
		return nil, classify(ctx, err)
	}
	if r.GetError() != "" {
		kind := textKind(r.GetError())
		if kind == storage.Other || kind == storage.NotFound {
			kind = storage.Unavailable
		}
		return nil, storage.Errorf(kind, "assign a chunk: %s", r.GetError())
	}
	first, err := parseID(r.GetFileId())
	if err != nil {
		return nil, err
	}
	age := runAge
	if r.GetAuth() != "" {
		age = signedAge
	}
	return &run{first: first, answer: r, until: asked.Add(age)}, nil
}
