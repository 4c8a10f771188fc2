package fuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-csi/holdfast/cache/journal"
	"github.com/holdfast-csi/holdfast/fuse/leftovers"
	"github.com/holdfast-csi/holdfast/storage"
)

// What was written and can never be committed, since somebody else removed or
// replaced the file, is kept aside on the node: nothing that write(2) has
// acknowledged is thrown away. Nobody but a human removes it.

// leftover describes what is kept aside, in a file beside it.
type leftover struct {
	Path storage.Path `json:"path"`
	Size int64        `json:"size"`
	Time time.Time    `json:"time"`
	// Written are the ranges that were written, [from, to); the rest of the file
	// was the content that somebody removed or replaced, and is zeros here.
	Written [][2]int64 `json:"written"`
	// Unread are those that could not be read, and are zeros here. What is there of
	// them is in the file whose name ends in ".unread".
	Unread [][2]int64 `json:"unread,omitempty"`
	Reason string     `json:"reason"`
}

// aside moves what a node has written out of the way and forgets it. When that
// fails everything stays as it is.
func (fs *FS) aside(ctx context.Context, n *node, reason error) error {
	end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if err := fs.landed(ctx, n); err != nil {
		return err
	}
	left := leftover{Path: fs.table.lastPath(n), Time: time.Now(), Reason: reason.Error()}
	n.mu.RLock()
	s := n.mu.stage
	var written []span
	if s != nil {
		written = s.parts()
		left.Size = n.sizeLocked()
	}
	n.mu.RUnlock()
	if len(written) == 0 || fs.opts.Dir == "" {
		fs.log.Error("changes cannot be committed and are lost", "op", "commit", "node", n.id, "path", left.Path, "err", reason)
		n.discard(ctx, fs)
		return nil
	}
	place := fs.leftoverPath(left.Time, n.id)
	if err := fs.keepAside(ctx, n, left, written, place); err != nil {
		return fmt.Errorf("keep what was written to %q aside: %w", left.Path, err)
	}
	if n.unreadable() {
		fs.log.Error("what was written cannot be committed: a part of it cannot be read; the rest is kept on this node",
			"op", "commit", "node", n.id, "path", left.Path, "kept", place, "err", reason)
	} else {
		fs.log.Error("what was written cannot be committed; it is kept on this node",
			"op", "commit", "node", n.id, "path", left.Path, "kept", place, "err", reason)
	}
	n.discard(ctx, fs)
	if fs.follower != nil { // else a power cut brings it back, and it is kept once more
		if err := fs.flushJournal(); err != nil {
			fs.log.Warn("what is kept aside may be kept once more after a power cut", "op", "commit", "node", n.id, "kept", place, "err", err)
		}
	}
	return nil
}

// leftoverPath is where something is kept that was found at a time, of a node or by a
// name.
func (fs *FS) leftoverPath(at time.Time, of any) string {
	return filepath.Join(fs.opts.Dir, leftovers.Dir, fmt.Sprintf("%s-%v", at.UTC().Format("20060102T150405.000000000"), of))
}

// makeLeftovers makes the folder.
func (fs *FS) makeLeftovers() error {
	if err := os.Mkdir(filepath.Join(fs.opts.Dir, leftovers.Dir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return localError(err)
	}
	return nil
}

// describe writes the description of what is kept at place.
func (l leftover) describe(place string) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(place+leftovers.Described, append(data, '\n'), 0o600); err != nil {
		return localError(err)
	}
	return nil
}

// keepAside writes a leftover and its description.
func (fs *FS) keepAside(ctx context.Context, n *node, left leftover, written []span, place string) (err error) {
	if err := fs.makeLeftovers(); err != nil {
		return err
	}
	f, err := os.OpenFile(place, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return localError(err)
	}
	defer func() {
		if closeErr := f.Close(); err == nil && closeErr != nil {
			err = localError(closeErr)
		}
		if err != nil { // it will be tried again, under another name
			_ = os.Remove(place)
			_ = os.Remove(place + leftovers.Described)
		}
	}()
	buf := make([]byte, min(left.Size, 1<<20))
	var kept, unread []span
	for _, d := range written {
		for at := d.from; at < d.to; at += int64(len(buf)) {
			b := buf[:min(int64(len(buf)), d.to-at)]
			part := span{at, at + int64(len(b))}
			_, err := fs.visible(ctx, n, part, b)
			if storage.Is(err, storage.Corrupt) || storage.Is(err, storage.Stale) { // nor will it ever be
				unread = addSpan(unread, part)
				continue
			}
			if err != nil {
				return err
			}
			kept = addSpan(kept, part)
			if _, err := f.WriteAt(b, at); err != nil {
				return localError(err)
			}
		}
	}
	left.Written, left.Unread = pairs(kept), pairs(unread)
	if err := f.Truncate(left.Size); err != nil {
		return localError(err)
	}
	if err := left.describe(place); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return localError(err)
	}
	if !n.unreadable() {
		return nil
	}
	if err := os.Rename(fs.stagePathOf(n), place+leftovers.Unread); err != nil && !errors.Is(err, os.ErrNotExist) {
		return localError(err)
	}
	return nil
}

func pairs(spans []span) (all [][2]int64) {
	for _, d := range spans {
		all = append(all, [2]int64{d.from, d.to})
	}
	return all
}

// Leftovers counts the files of which something is kept aside, and what should be and
// could not be moved there.
func (fs *FS) Leftovers() (kept int, err error) {
	if fs.opts.Dir == "" {
		return 0, nil
	}
	if kept, err = leftovers.Count(fs.opts.Dir); err != nil {
		return 0, err
	}
	journals, err := journal.Kept(fs.opts.Dir)
	return kept + len(journals) + int(fs.strays.Load()), err
}
