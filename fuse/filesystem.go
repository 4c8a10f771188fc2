package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// watchedTTL is how long the kernel and we trust a name or an attribute while
	// the stream of changes tells us of every foreign one.
	watchedTTL = time.Minute
	// blindTTL is the same while the stream is down.
	blindTTL = time.Second
	// DefaultDeadline is long enough for a cluster that is started again.
	DefaultDeadline = 2 * time.Minute
)

// Notifier tells the kernel to forget. Its methods must not wait; they fail only
// when the session has ended, and then there is nothing to forget.
type Notifier interface {
	// InvalInode drops the attributes of a node and its cached bytes from off, or
	// the attributes alone when off is negative.
	InvalInode(node uint64, off, length int64) error
	// InvalEntry drops one name of a directory.
	InvalEntry(parent uint64, name string) error
}

// Options of a file system. The zero value works.
type Options struct {
	// ReadOnly refuses every change.
	ReadOnly bool
	// UID, GID, FileMode and DirMode are shown for objects that were made over
	// S3. Modes default to 0644 and 0755.
	UID, GID          uint32
	FileMode, DirMode os.FileMode
	// Group, when set, is who shall have the volume: it takes the place of GID, modes
	// default to 0664 and 2775, and the root is shown as its own, open to it.
	Group *uint32
	// Groups are those that the volume was mounted for before. What such a group owns
	// is shown as Group's, or the pod of another group could not use what it finds.
	Groups []uint32
	// Dir is the volume's folder on the node, for what has to outlive the process:
	// the journal, and content that waits for its commit. It exists. Empty means
	// that nothing outlives it (tests).
	Dir string
	// Node is where this is. Live gives the nodes that may use the volume at this
	// time; what others hold of files without a name is freed. Nothing is when Live
	// is nil.
	Node string
	Live func(ctx context.Context) ([]string, error)
	// Fence is the lease of a volume of one node, by which the volume's changes are
	// guarded. Nil when there is none.
	Fence *Fence
	// Fresh says that the kernel session is a new one: it knows no names and holds
	// no handles. What was written and not committed is committed all the same.
	Fresh bool
	// Deadline is how long a call waits for the store: then it gets EIO, that call
	// alone. Nothing that was acknowledged is given up with it. 0 means
	// DefaultDeadline.
	Deadline time.Duration
	// CommitDelay is set for a volume of durability node: fsync returns when what was
	// written is on this node's disk, and the store follows within that time; close
	// waits for neither. It needs Dir, and a volume that no other node has.
	CommitDelay time.Duration
	// Uploads bounds what is on its way to the store; a bound of its own when nil.
	Uploads *Uploads
	// Logger takes failed operations; nothing when nil.
	Logger *slog.Logger
}

// FS serves one volume. It implements go-fuse's RawFileSystem.
type FS struct {
	gofuse.RawFileSystem
	vol  storage.Volume
	opts Options
	log  *slog.Logger

	memo  *memo
	table *table
	tree  *tree
	dirs  *dirStreams
	redos *redos
	// holder names this mount in the store, where the content of files without a
	// name is held for the handles that are open here. It stays over a take-over.
	holder string
	// boot is the number of the machine's boot.
	boot uint64
	// memory is what the stages of all files hold in RAM, in bytes.
	memory atomic.Int64
	// leftovers is set when something waits for a commit and no handle is open.
	leftovers atomic.Bool
	// strays are files that are to be kept aside and could not be moved.
	strays atomic.Int64
	// watched is set while the stream of changes is up.
	watched atomic.Bool
	room    *room
	// toldFull is when it was logged last that the volume is full.
	toldFull atomic.Int64
	// crowded files wait to be merged.
	crowded chan *node
	calls   calls
	writer  writer
	// follower is there when fsync does not wait for the store.
	follower *follower
	// flushFile brings a file to the disk; the tests have one that keeps what it was.
	flushFile func(*os.File) error

	notifier atomic.Pointer[Notifier]
	// life ends with Close: nothing begins in the background from then on.
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
}

var _ gofuse.RawFileSystem = (*FS)(nil)

// New makes a file system over a volume. It does nothing until Recover and Start.
func New(vol storage.Volume, o Options) *FS {
	if o.Group != nil {
		o.GID = *o.Group
		if o.FileMode == 0 {
			o.FileMode = 0o664
		}
		if o.DirMode == 0 {
			o.DirMode = os.ModeSetgid | 0o775
		}
	}
	if o.FileMode == 0 {
		o.FileMode = 0o644
	}
	if o.DirMode == 0 {
		o.DirMode = 0o755
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Deadline <= 0 {
		o.Deadline = DefaultDeadline
	}
	if o.Uploads == nil {
		o.Uploads = NewUploads(0)
	}
	m, r := newMemo(o.Logger), newRoom()
	vol.Files = countedFiles{vol.Files, r}
	fs := &FS{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		vol:           vol, opts: o, log: o.Logger,
		memo: m, room: r, table: newTable(m, r), tree: newTree(), dirs: newDirStreams(m),
		crowded: make(chan *node, mergeQueue), calls: calls{open: make(map[uint64]*call)},
		redos: newRedos(), holder: newHolder(o.Node), boot: bootNumber(), flushFile: flushFile,
	}
	fs.writer.id = mathrand.Uint64()
	if o.CommitDelay > 0 && o.Dir != "" {
		fs.follower = newFollower(o.CommitDelay)
	}
	return fs
}

// Start begins to follow the changes that others make and passes them to the
// kernel through n.
func (fs *FS) Start(n Notifier) {
	fs.notifier.Store(&n)
	ctx, stop := context.WithCancel(context.Background())
	fs.life, fs.stop = ctx, stop
	fs.running.Go(func() { fs.watch(ctx) })
	fs.running.Go(func() { fs.keepHouse(ctx) })
	fs.running.Go(func() { fs.mergeFiles(ctx) })
	fs.running.Go(func() { fs.countRoom(ctx) })
	if fs.opts.Fence != nil {
		fs.running.Go(func() { fs.keepLease(ctx) })
	}
	if fs.follower != nil {
		for _, n := range fs.table.all() {
			if n.dirty() { // left by the mounter before
				fs.follower.add(n)
			}
		}
		fs.running.Go(func() { fs.follow(ctx) })
	}
}

// Close commits what is still dirty and ends the goroutines. What cannot be
// committed now stays, and the error says so: Close again. What never can be,
// since somebody else removed or replaced the file, is given up and logged.
func (fs *FS) Close(ctx context.Context) error {
	if fs.stop != nil {
		fs.stop()
	}
	fs.running.Wait()
	if failed := fs.lastCommits(ctx); failed != nil {
		return failed
	}
	if fs.memo.journal == nil {
		return nil
	}
	err := fs.memo.journal.Close()
	fs.memo.journal = nil
	return err
}

// lastCommits brings what is dirty to the store, or keeps it aside.
func (fs *FS) lastCommits(ctx context.Context) error {
	if lost := fs.ask(ctx); lost != nil {
		return fs.abandon(ctx, lost)
	}
	fs.sweepMerges(ctx)
	failed := fs.settled(ctx)
	for _, n := range fs.table.all() {
		err := fs.commit(ctx, n)
		if err != nil && !n.hopeless(err) {
			failed = errors.Join(failed, fmt.Errorf("node %d: %w", n.id, err))
			continue
		}
		if err != nil {
			err = fs.aside(ctx, n, err)
		} else {
			n.discard(ctx, fs)
		}
		if err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// Retire removes the volume's folder on the node, after a Close that left
// nothing. What is kept aside stays, and the folder with it: kind InUse says so.
func (fs *FS) Retire() error {
	if fs.opts.Dir == "" {
		return nil
	}
	if fs.memo.journal != nil {
		return storage.Errorf(storage.InUse, "%s: not everything is committed", fs.opts.Dir)
	}
	if err := errors.Join(journal.Remove(fs.opts.Dir), fs.room.remove(fs.opts.Dir)); err != nil {
		return err
	}
	kept, err := os.ReadDir(fs.opts.Dir)
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		return storage.Errorf(storage.InUse, "%s: something is kept there, %s first", fs.opts.Dir, kept[0].Name())
	}
	return os.Remove(fs.opts.Dir)
}

// String implements gofuse.RawFileSystem.
func (fs *FS) String() string { return "holdfast" }

// ttl is how long an answer may be kept.
func (fs *FS) ttl() time.Duration {
	if fs.watched.Load() {
		return watchedTTL
	}
	return blindTTL
}

// node finds the node of a request, and learns what the mounter before knew of
// it.
func (fs *FS) node(id uint64) (*node, error) {
	if err := fs.opts.Fence.Lost(); err != nil {
		return nil, err
	}
	n := fs.table.get(id)
	if n == nil {
		return nil, storage.Errorf(storage.Stale, "node %d is not known", id)
	}
	if n.loaded.Load() {
		return n, nil
	}
	ctx, done := fs.changing()
	defer done()
	if err := fs.load(ctx, n); err != nil {
		return nil, err
	}
	return n, nil
}

// writable refuses changes of a read-only volume.
func (fs *FS) writable() error {
	if fs.opts.ReadOnly {
		return storage.Errorf(storage.ReadOnly, "the volume is read-only")
	}
	return nil
}

// Access implements gofuse.RawFileSystem: the kernel checks permissions itself.
func (fs *FS) Access(<-chan struct{}, *gofuse.AccessIn) gofuse.Status {
	return gofuse.Status(syscall.ENOSYS)
}
