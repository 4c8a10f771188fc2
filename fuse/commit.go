package fuse

import (
	"context"
	"crypto/md5"
	"fmt"
	"hash"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
)

// A commit brings a stage to the store: its bytes as new chunks, then the entry
// with a condition, so that nobody's work is overwritten unseen. Small files and
// files written as a whole get one MD5 over everything, which is their ETag; a
// change inside a larger file adds chunks, and its ETag has the multipart form.
// A commit that the mounter's death cuts short is done again by the next one,
// from the same stage: the condition makes sure that it happens once.

const (
	// chunkSize is how much goes into one chunk, as S3 gateways cut it.
	chunkSize = 8 << 20
	// smallFile and below is written again as a whole.
	smallFile = 1 << 20
	// parallelUploads of one commit; times chunkSize is what it takes in memory.
	parallelUploads = 4
	// maxRetries when others change the entry all the time.
	maxRetries = 10
)

// commit returns when all that was written and changed is in the store.
func (fs *FS) commit(ctx context.Context, n *node) error {
	if !n.dirty() {
		return nil
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return fs.commitInTurn(ctx, n)
}

// commitInTurn is commit for a caller that holds the turn: nobody writes to the
// stage meanwhile.
func (fs *FS) commitInTurn(ctx context.Context, n *node) error {
	if !n.dirty() {
		return nil
	}
	if orphan, _ := fs.table.state(n); orphan && n.isKept() {
		return nil // unlinked while open: nobody else will ever read it
	}
	for range maxRetries {
		n.mu.RLock()
		base, s, pending := n.mu.entry, n.mu.stage, n.mu.pending
		n.mu.RUnlock()
		next := base.Clone()
		fs.dress(&next)
		var uploaded []storage.Chunk
		if s != nil {
			var err error
			if uploaded, err = fs.lay(ctx, n, &next, s); err != nil {
				return err
			}
		}
		pending.apply(&next)
		err := fs.put(ctx, n, next)
		if err == nil {
			n.mu.Lock()
			n.mu.stage, n.mu.pending = nil, patch{}
			fs.memo.note(record{kind: recClean, id: n.id})
			n.mu.opened = contentOf(n.mu.entry)
			n.mu.Unlock()
			if s != nil {
				s.close(fs)
			}
			fs.committed(n)
			return nil
		}
		// What was uploaded is seen by nobody.
		if freeErr := fs.vol.Chunks.Delete(context.WithoutCancel(ctx), ids(uploaded)); freeErr != nil {
			fs.log.Warn("unused chunks stay", "op", "commit", "node", n.id, "err", freeErr)
		}
		if !storage.Is(err, storage.Changed) {
			return err
		}
		if err := fs.reread(ctx, n); err != nil {
			return err
		}
	}
	return storage.Errorf(storage.Busy, "commit of node %d: others changed it %d times meanwhile", n.id, maxRetries)
}

func (n *node) isKept() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.kept
}

// put updates the entry of a node, wherever it is now.
//
// An entry that S3 made becomes ours with the first change: it takes the node's
// number, which is unique. Its attributes are dressed by the caller.
func (fs *FS) put(ctx context.Context, n *node, next storage.Entry) error {
	if !next.Native {
		if n != fs.table.root {
			next.Inode = n.id
		}
		next.Native = true
		fs.memo.note(record{kind: recSeen, id: n.id, a: identity(next), b: next.Inode})
	}
	for {
		p, done, err := fs.at(ctx, n)
		if err != nil {
			return err
		}
		now, err := fs.vol.Files.Update(ctx, p, next)
		done()
		if err == nil {
			fs.table.did(n, now)
			return nil
		}
		if storage.Is(err, storage.NotFound) {
			if now, pathErr := fs.table.path(n); pathErr == nil && now != p {
				continue // one of its hard links is gone
			}
			return storage.Errorf(storage.Stale, "%w", err)
		}
		return err
	}
}

// reread learns the entry again after a condition failed. Stale when another
// file stands there now.
func (fs *FS) reread(ctx context.Context, n *node) error {
	p, done, err := fs.at(ctx, n)
	if err != nil {
		return err
	}
	defer done()
	return fs.rereadAt(ctx, n, p)
}

// rereadAt is reread for a caller that holds the tree: p is where the node is.
func (fs *FS) rereadAt(ctx context.Context, n *node, p storage.Path) error {
	e, err := fs.vol.Files.Lookup(ctx, p)
	if storage.Is(err, storage.NotFound) {
		return storage.Errorf(storage.Stale, "%w", err)
	}
	if err != nil {
		return err
	}
	was := n.stored()
	replaced := n != fs.table.root && !sameFile(n, e)
	if !e.Native && !replaced { // S3 may have put another object in its place
		replaced = !equalContent(was, e)
	}
	if replaced {
		return storage.Errorf(storage.Stale, "%q was replaced by somebody else", p)
	}
	n.learn(e)
	return nil
}

func equalContent(a, b storage.Entry) bool {
	x, y := contentOf(a), contentOf(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return a.Size == b.Size
}

func ids(chunks []storage.Chunk) []storage.ChunkID {
	out := make([]storage.ChunkID, 0, len(chunks))
	for _, c := range chunks {
		out = append(out, c.ID)
	}
	return out
}

// lay uploads what the stage holds and puts it into next. It returns the new
// chunks.
func (fs *FS) lay(ctx context.Context, n *node, next *storage.Entry, s *stage) ([]storage.Chunk, error) {
	near, err := fs.table.path(n)
	if err != nil {
		return nil, err
	}
	if s.whole() || s.size <= smallFile || len(next.Inline) > 0 {
		sum := md5.New()
		made, err := fs.upload(ctx, near, n, []span{{0, s.size}}, sum)
		if err != nil {
			return nil, err
		}
		next.Chunks, next.Inline, next.Size, next.MD5 = made, nil, s.size, sum.Sum(nil)
		return made, nil
	}
	kept := storage.Cut(next.Chunks, s.base)
	made, err := fs.upload(ctx, near, n, s.dirty, nil)
	if err != nil {
		return nil, err
	}
	modified := storage.NextModified(kept)
	for i := range made {
		made[i].Modified = modified
	}
	next.Chunks = storage.Visible(append(kept, made...))
	next.Size, next.MD5 = s.size, nil
	return made, nil
}

// upload stores ranges of the file as chunks, in parallel, and feeds them in
// order to sum when there is one.
func (fs *FS) upload(ctx context.Context, near storage.Path, n *node, spans []span, sum hash.Hash) ([]storage.Chunk, error) {
	var pieces []span
	for _, d := range spans {
		for at := d.from; at < d.to; at += chunkSize {
			pieces = append(pieces, span{at, min(at+chunkSize, d.to)})
		}
	}
	made := make([]storage.Chunk, len(pieces))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelUploads)
	var readErr error
	for i, p := range pieces {
		if ctx.Err() != nil {
			break
		}
		data := make([]byte, p.to-p.from)
		got, err := fs.readAt(ctx, n, data, p.from)
		if err == nil && got != len(data) {
			err = fmt.Errorf("got %d bytes of %d at %d", got, len(data), p.from)
		}
		if err != nil {
			readErr = fmt.Errorf("read what is to be committed: %w", err)
			break
		}
		if sum != nil {
			sum.Write(data)
		}
		group.Go(func() error {
			c, err := fs.vol.Chunks.Write(ctx, near, data)
			c.Offset, c.Modified = p.from, 1
			made[i] = c
			return err
		})
	}
	err := group.Wait()
	if err == nil {
		err = readErr
	}
	if err == nil {
		return made, nil
	}
	var orphans []storage.ChunkID
	for _, c := range made {
		if c.ID != "" {
			orphans = append(orphans, c.ID)
		}
	}
	if freeErr := fs.vol.Chunks.Delete(context.WithoutCancel(ctx), orphans); freeErr != nil {
		fs.log.Warn("unused chunks stay", "op", "commit", "node", n.id, "err", freeErr)
	}
	return nil, err
}
