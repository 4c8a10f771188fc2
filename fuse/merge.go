package fuse

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// Files that are committed again and again get chunk after chunk; here they are
// merged in the background (storage/merge.go says which, and why). One file of a
// volume at a time, so it takes little memory.
//
// The bytes are read and uploaded outside the file's turn: they are those of
// chunks, which do not change. Only the update of the entry takes the turn, with
// the condition of every commit. A reader that still has the old chunks in hand
// finds them gone and looks again (read.go).
//
// The new chunk is noted before the update is sent. From then on it is either
// named by the entry, or freed, but not before it is certain that no update that
// names it can be carried out any more: a mounter's last request may be carried
// out after its death. So who finds such a note finishes the merging; when the
// content has changed since, it is too late for everybody, and the chunk goes. A
// mounter that dies between the upload and the note leaves a chunk behind that
// nobody names; noting ids before they are used lost: it is one more append for
// each chunk, against one chunk for each death at the wrong moment.

const (
	// mergeBegin and mergeEnd are how many chunks more than it needs a file has
	// when merging begins and ends.
	mergeBegin, mergeEnd = 32, 28
	// mergeEvery so many commits of a file it is looked whether it is to be merged.
	mergeEvery = 8
	// mergeQueue is how many files may wait. One that finds no room comes again
	// with its next commits.
	mergeQueue = 64
)

// merging is a chunk that is to take the place of others.
type merging struct {
	Merge storage.Merge
	Made  storage.Chunk
	// doubt: an update that names Made may have been carried out.
	doubt bool
}

// committed counts a commit of n, and has it looked at now and then.
func (fs *FS) committed(n *node) {
	if n.commits.Add(1)%mergeEvery != 0 {
		return
	}
	if e := n.stored(); len(e.Chunks) <= storage.FewChunks {
		return
	}
	select {
	case fs.crowded <- n:
	default:
	}
}

// mergeFiles merges the files that have many chunks, until ctx ends.
func (fs *FS) mergeFiles(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-fs.crowded:
			if err := fs.mergeFile(ctx, n); err != nil && ctx.Err() == nil {
				fs.log.Warn("chunks of a file were not merged", "op", "merge", "node", n.id, "err", err)
			}
		}
	}
}

// mergeFile merges what is to be merged in one file.
func (fs *FS) mergeFile(ctx context.Context, n *node) error {
	defer fs.table.drop(n) // the kernel may have forgotten it meanwhile
	if err := fs.settleMerge(ctx, n); err != nil {
		return err
	}
	for spare := mergeBegin; ctx.Err() == nil; {
		e := n.stored()
		if orphan, _ := fs.table.state(n); orphan || !e.Native {
			return nil
		}
		if storage.Crowd(&e, mergeBegin) {
			spare = mergeEnd
		}
		m, ok := storage.NextMerge(&e, spare)
		if !ok {
			return nil
		}
		if !fs.room.fits(holesIn(n.layout(e), span{m.From, m.To})) {
			return nil // holes that are filled take room
		}
		err := fs.mergeRun(ctx, n, e, m)
		if storage.Is(err, storage.NotFound) || storage.Is(err, storage.Stale) {
			return nil // others were here; the next commits bring it back
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// mergeRun makes one chunk of a run of the content e.
func (fs *FS) mergeRun(ctx context.Context, n *node, e storage.Entry, m storage.Merge) error {
	near, err := fs.table.path(n)
	if err != nil {
		return err
	}
	data := make([]byte, m.To-m.From)
	if err := fs.readStored(ctx, n, e, m.To, data, m.From); err != nil {
		return fmt.Errorf("read what is to be merged: %w", err)
	}
	c, err := fs.vol.Chunks.Write(ctx, near, data)
	if err != nil {
		return err
	}
	g := &merging{Merge: m, Made: m.Place(c)}
	if err := fs.noteMerge(n, g); err != nil {
		return fs.vol.Chunks.Delete(context.WithoutCancel(ctx), []storage.ChunkID{c.ID})
	}
	return fs.settleMerge(ctx, n)
}

// settleMerge puts the merged chunk of n, if there is one, into the entry, or
// frees it. An error means that neither is certain: it is to be called again.
func (fs *FS) settleMerge(ctx context.Context, n *node) error {
	if n.merging() == nil {
		return nil
	}
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	for range maxRetries {
		g := n.merging()
		if g == nil {
			return nil
		}
		now := n.stored()
		if hasChunk(now, g.Made.ID) { // by an update whose answer was lost
			return fs.noteMerge(n, nil)
		}
		merged, ok := g.Merge.Merged(now.Chunks, g.Made)
		if orphan, _ := fs.table.state(n); orphan {
			return fs.abandonMerge(ctx, n, g)
		}
		if !ok || !now.Native {
			return fs.freeMerge(ctx, n, g)
		}
		next := now.Clone()
		next.Chunks, next.Merged = merged, true
		err := fs.put(ctx, n, next)
		switch {
		case err == nil:
			n.mu.Lock()
			if slices.Equal(n.mu.opened, contentOf(now)) { // the same bytes: the kernel's pages stay
				n.mu.opened = contentOf(n.mu.entry)
			}
			n.mu.Unlock()
			return fs.noteMerge(n, nil)
		case storage.Is(err, storage.Changed):
			err = fs.reread(ctx, n)
		}
		if storage.Is(err, storage.Stale) { // removed, replaced, or moved by somebody else
			return fs.abandonMerge(ctx, n, g)
		}
		if err != nil {
			n.mu.Lock()
			g.doubt = true
			n.mu.Unlock()
			fs.leftovers.Store(true)
			return err
		}
	}
	fs.leftovers.Store(true)
	return storage.Errorf(storage.Busy, "merge of node %d: others changed it %d times meanwhile", n.id, maxRetries)
}

// abandonMerge gives a merged chunk up when its file is not where it was. When an
// update may have been carried out, the file may show the chunk, wherever somebody
// has moved it: it stays, in use or not.
func (fs *FS) abandonMerge(ctx context.Context, n *node, g *merging) error {
	n.mu.RLock()
	doubt := g.doubt
	n.mu.RUnlock()
	if !doubt {
		return fs.freeMerge(ctx, n, g)
	}
	fs.log.Warn("a merged chunk stays, since its file is not found", "op", "merge", "node", n.id)
	return fs.noteMerge(n, nil)
}

// freeMerge gives a merged chunk up that no entry can name any more.
func (fs *FS) freeMerge(ctx context.Context, n *node, g *merging) error {
	if err := fs.vol.Chunks.Delete(context.WithoutCancel(ctx), []storage.ChunkID{g.Made.ID}); err != nil {
		fs.leftovers.Store(true)
		return err
	}
	return fs.noteMerge(n, nil)
}

// sweepMerges settles what was left in doubt, here or by the mounter before, and
// reports whether nothing is left.
func (fs *FS) sweepMerges(ctx context.Context) bool {
	done := true
	for _, n := range fs.table.all() {
		g := n.merging()
		if g == nil {
			continue
		}
		err := error(nil)
		if !n.loaded.Load() {
			err = fs.load(ctx, n)
		}
		if storage.Is(err, storage.Stale) {
			err = fs.abandonMerge(ctx, n, g)
		} else if err == nil {
			err = fs.settleMerge(ctx, n)
		}
		if err != nil {
			fs.log.Warn("a merged chunk is not settled yet", "op", "merge", "node", n.id, "err", err)
			done = false
			continue
		}
		fs.table.drop(n)
	}
	return done
}

// merging returns the chunk that is on its way into the entry of n, or nil.
func (n *node) merging() *merging {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.merging
}

// noteMerge writes down and keeps what is being merged, nil for nothing.
func (fs *FS) noteMerge(n *node, g *merging) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, err := mergeRecord(n.id, g)
	if err == nil {
		err = fs.memo.write(r)
	}
	if err == nil || g == nil { // a note that stays finds the chunk named, or gone
		n.mu.merging = g
	}
	return err
}

// mergeRecord is what a successor has to know of g.
func mergeRecord(id uint64, g *merging) (record, error) {
	if g == nil {
		return record{kind: recMerged, id: id}, nil
	}
	noted := *g
	noted.Made.Origin = nil
	data, err := json.Marshal(noted)
	return record{kind: recMerge, id: id, data: data}, err
}

// applyMerge replays a note.
func (r *replayed) applyMerge(rec record) error {
	if rec.kind == recMerged {
		if n := r.fs.table.byID[rec.id]; n != nil {
			n.mu.merging = nil
		}
		return nil
	}
	g := &merging{}
	if err := json.Unmarshal(rec.data, g); err != nil {
		return storage.Errorf(storage.Corrupt, "the note of a merging: %w", err)
	}
	g.doubt = true
	r.node(rec.id).mu.merging = g
	return nil
}

// liveMerge emits the note of n, for a compaction.
func (n *node) liveMerge(put func(record) error) error {
	g := n.merging()
	if g == nil {
		return nil
	}
	r, err := mergeRecord(n.id, g)
	if err != nil {
		return err
	}
	return put(r)
}

func hasChunk(e storage.Entry, id storage.ChunkID) bool {
	return slices.ContainsFunc(e.Chunks, func(c storage.Chunk) bool { return c.ID == id })
}
