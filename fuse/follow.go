package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is a volume of durability node: fsync returns when what was written is on
// this node's disk, and the store follows.
//
// What is on the disk is the journal, flushed once for everybody who waits. It holds
// the bytes of every write, also of those whose stage has a file: that one is flushed
// only when a compaction drops the bytes from the journal, and whatever of it a power
// cut has taken until then the replay writes again. Flushing the stage's file and then
// a record of the range was the design that lost: the kernel may bring such a record
// to the disk before the bytes, when somebody else's fsync flushes the journal, and
// zeros would stand over what was committed. The price: large writes go to the node's
// disk twice.
//
// The store follows file by file, in the order in which their changes began, and
// begins when half of the delay has passed. What was fsynced is brought in that order
// to the end, what was not several files at a time. Files are not brought together:
// when the node is lost, each is as it was at some moment within the delay, and not
// all at the same one. When the store does not follow within the delay, fsync waits
// for it: the loss of the node costs no more than the delay.

const (
	// followFor bounds one commit in the background: whoever writes to the file
	// waits for it.
	followFor = 10 * time.Second
	// followAgain is when a commit that failed is tried again.
	followAgain = time.Second
	// probeFor bounds the question whether the store is there again. It is asked
	// without the turn of any file, so that nobody waits for it.
	probeFor = 2 * time.Second
)

// waiting is a file whose changes the store does not have.
type waiting struct {
	n *node
	// since is when the first of them was made.
	since time.Time
	// synced: some were promised to be on this node's disk.
	synced bool
	// err is what the last commit failed with, next when it is tried again.
	err  error
	next time.Time
	// over: it waits no more.
	over bool
}

// away reports whether the store is out of reach, and not this file at fault.
func (w *waiting) away() bool {
	return w.err != nil && (storage.IsContext(w.err) || storage.Is(w.err, storage.Unavailable))
}

// follower knows what waits, in the order in which it began to.
type follower struct {
	delay time.Duration
	// wake is told of each.
	wake chan struct{}

	mu struct {
		sync.Mutex
		// waits are in the order of since, those among them that are over. There may be
		// very many. INVARIANT: the first is not over.
		waits []*waiting
		of    map[*node]*waiting
		// brought counts those that wait no more, and told how many of them the
		// journal on the disk knows of: to that one the others wait still.
		brought, told uint64
		// moved is closed, and made anew, when something has become of one.
		moved chan struct{}
	}
}

func newFollower(delay time.Duration) *follower {
	f := &follower{delay: delay, wake: make(chan struct{}, 1)}
	f.mu.of = map[*node]*waiting{}
	f.mu.moved = make(chan struct{})
	return f
}

// add says that n has changed. A nil follower takes no notice.
func (f *follower) add(n *node) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.of[n] != nil {
		return
	}
	w := &waiting{n: n, since: time.Now()}
	f.mu.of[n] = w
	f.mu.waits = append(f.mu.waits, w)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// promised says that what n has was fsynced.
func (f *follower) promised(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.mu.of[n]; w != nil {
		w.synced = true
	}
}

// owes reports whether something waits, or does by the journal that is on the disk.
func (f *follower) owes() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.mu.of) > 0 || f.mu.told < f.mu.brought
}

// flushJournal returns when the journal is on this node's disk.
func (fs *FS) flushJournal() error {
	f := fs.follower
	f.mu.Lock()
	brought := f.mu.brought
	f.mu.Unlock()
	if err := fs.memo.flush(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.told = max(f.mu.told, brought)
	return nil
}

// due are those whose commit is to begin, and how long it is until others are.
func (f *follower) due(now time.Time) (due []waiting, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = time.Hour
	for _, w := range f.mu.waits {
		if w.over {
			continue
		}
		if left := w.since.Add(f.delay / 2).Sub(now); left > 0 {
			next = min(next, left)
			break
		}
		if left := w.next.Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		due = append(due, *w)
	}
	return due, next
}

// ended takes n out.
func (f *follower) ended(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.mu.of[n]
	if w == nil {
		return
	}
	delete(f.mu.of, n)
	f.mu.brought++
	w.over, w.n = true, nil
	for len(f.mu.waits) > 0 && f.mu.waits[0].over {
		f.mu.waits = f.mu.waits[1:]
	}
	close(f.mu.moved)
	f.mu.moved = make(chan struct{})
}

// failed keeps why n was not committed, and reports whether that is news.
func (f *follower) failed(n *node, err error) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.mu.of[n]
	if w == nil {
		return false
	}
	news = w.err == nil
	w.err, w.next = err, time.Now().Add(followAgain)
	close(f.mu.moved)
	f.mu.moved = make(chan struct{})
	return news
}

// trouble is why n in particular could not be committed: not because the store is
// out of reach.
func (f *follower) trouble(n *node) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.mu.of[n]; w != nil && !w.away() {
		return w.err
	}
	return nil
}

// late returns by how much the store is behind what it should have and why, and a
// channel that is closed when that may have changed. Files that have a trouble of their own,
// of which their own fsync tells, are left out unless all are asked for.
func (f *follower) late(all bool) (age time.Duration, moved <-chan struct{}, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.mu.waits {
		if w.over || w.err != nil && !w.away() && !all {
			continue
		}
		if past := time.Since(w.since); past > f.delay {
			age, why = past, w.err
		}
		break // the others began to wait later
	}
	return age, f.mu.moved, why
}

// pace returns when the store is not further behind than the delay.
func (f *follower) pace(ctx context.Context) error {
	for {
		age, moved, why := f.late(false)
		if age == 0 {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return storage.Errorf(storage.Unavailable, "it is on this node's disk, and the cluster, which does not have what was written %s ago, is further behind than %s: %w", age.Round(time.Millisecond), f.delay, errors.Join(ctx.Err(), why))
		}
	}
}

// keepHere is fsync: it returns when what was written to n is on this node's disk.
// When that cannot be had it brings it to the store.
func (fs *FS) keepHere(ctx context.Context, n *node) error {
	if !n.dirty() {
		return nil
	}
	if orphan, _ := fs.table.state(n); orphan && n.isKept() {
		return nil // unlinked while open: nobody else will ever read it
	}
	if fs.follower.trouble(n) != nil || n.unreadable() || fs.memo.hole.Load() != nil {
		return fs.commit(ctx, n)
	}
	// Of a volume that another node may have by now nothing is promised.
	if fs.opts.Fence != nil {
		if _, err := fs.opts.Fence.Allow(ctx); err != nil {
			return err
		}
	}
	if err := fs.flushJournal(); err != nil {
		return err
	}
	fs.follower.promised(n)
	return fs.follower.pace(ctx)
}

// follow brings to the store what waits, until ctx ends.
func (fs *FS) follow(ctx context.Context) {
	away := false
	for ctx.Err() == nil {
		due, next := fs.follower.due(time.Now())
		if len(due) > 0 && fs.opts.Fence.Lost() == nil { // else it is kept aside: lost.go
			if !away || fs.answers(ctx) {
				away = fs.bring(ctx, due)
				continue
			}
			next = followAgain
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-fs.follower.wake:
		}
		timer.Stop()
	}
}

// answers reports whether the store is there.
func (fs *FS) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	_, err := fs.vol.Files.Lookup(ctx, "")
	return err == nil || storage.Is(err, storage.NotFound)
}

// bring commits files, and reports whether the store turned out to be away. One that
// was fsynced waits for those before it.
func (fs *FS) bring(ctx context.Context, due []waiting) (away bool) {
	var mu sync.Mutex
	one := func(n *node) {
		if fs.bringOne(ctx, n) {
			mu.Lock()
			away = true
			mu.Unlock()
		}
	}
	stop := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return away || ctx.Err() != nil
	}
	var group errgroup.Group
	group.SetLimit(parallelCommits)
	for _, w := range due {
		if w.synced {
			_ = group.Wait() // none fails
		}
		if stop() {
			break
		}
		if w.synced {
			one(w.n)
			continue
		}
		group.Go(func() error {
			one(w.n)
			return nil
		})
	}
	_ = group.Wait()
	return away
}

// bringOne commits a file, and reports whether the store is away.
func (fs *FS) bringOne(ctx context.Context, n *node) (away bool) {
	bounded, cancel := context.WithTimeout(ctx, min(followFor, fs.opts.Deadline))
	defer cancel()
	err := fs.commit(bounded, n)
	switch {
	case ctx.Err() != nil || fs.opts.Fence.Lost() != nil:
		return false
	case err == nil:
		fs.follower.ended(n)
		if n.dirty() && !n.isKept() { // written again before it was taken out
			fs.follower.add(n)
		}
		fs.table.drop(n)
		return false
	}
	if fs.follower.failed(n, err) {
		fs.log.Warn("what is on this node's disk is not in the cluster yet", "op", "follow", "node", n.id, "path", fs.table.lastPath(n), "err", err)
	}
	if _, opens := fs.table.state(n); n.hopeless(err) && opens == 0 {
		fs.leftovers.Store(true) // it is kept aside
	}
	return storage.IsContext(err) || storage.Is(err, storage.Unavailable)
}

// Behind says by how much the store is behind what a volume of durability node should
// have brought to it, and why; zero when it is not.
func (fs *FS) Behind() (age time.Duration, why error) {
	if fs.follower == nil {
		return 0, nil
	}
	age, _, why = fs.follower.late(true)
	return age, why
}

// useless forgets what waits of a file that has just lost its last name to us while
// nobody had it open. Without a follower a file is committed when it is closed, and
// there is nothing. The caller holds the turn.
func (fs *FS) useless(ctx context.Context, n *node) {
	if fs.follower != nil && n.dirty() && fs.landed(ctx, n) == nil { // else giveUp does
		n.discard(ctx, fs)
	}
}

// unwanted reports whether what waits of n is of no use to anybody: this mount has
// removed its last name, and nobody has it open.
func (fs *FS) unwanted(n *node) bool {
	if fs.follower == nil {
		return false
	}
	orphan, opens := fs.table.state(n)
	n.mu.RLock()
	defer n.mu.RUnlock()
	return orphan && opens == 0 && n.mu.removed
}

// giveUp forgets what waits of a file that was removed.
func (fs *FS) giveUp(ctx context.Context, n *node) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := fs.landed(ctx, n); err != nil {
		return err
	}
	if fs.unwanted(n) {
		n.discard(ctx, fs)
	}
	return nil
}

// flushStage brings the file of a stage to the disk, for a journal that does not hold
// its bytes any more.
func (fs *FS) flushStage(n *node) error {
	if fs.follower == nil {
		return nil
	}
	n.mu.RLock()
	s := n.mu.stage
	var f *os.File
	var failed error
	if s != nil {
		f, failed = s.file, s.unflushed
	}
	n.mu.RUnlock()
	if f == nil || failed != nil {
		return failed
	}
	err := fs.flushFile(f)
	if err == nil || errors.Is(err, os.ErrClosed) { // committed meanwhile, which the journal is told
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.unflushed = fmt.Errorf("flush what waits of node %d: %w", n.id, localError(err))
	return s.unflushed
}

// flushFile is fdatasync(2); os.ErrClosed for a file that was closed.
func flushFile(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := c.Control(func(fd uintptr) {
		for {
			if err = unix.Fdatasync(int(fd)); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(controlErr, err)
}
