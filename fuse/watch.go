package fuse

import (
	"context"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// watch follows the changes that others make. While it is up names and
// attributes are trusted for long; after each break all that was learnt before
// is doubted, since what happened meanwhile is not told.
func (fs *FS) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := fs.vol.Watcher.Watch(ctx, func() {
			fs.doubtAll()
			fs.watched.Store(true)
			fs.room.begun()
		}, fs.changed)
		if fs.watched.Swap(false) {
			fs.doubtAll()
		}
		if ctx.Err() != nil {
			return
		}
		fs.log.Warn("the stream of changes broke; names and attributes are asked for again each second", "op", "watch", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(blindTTL):
		}
	}
}

// doubtAll makes the kernel and us ask again for every name and attribute.
func (fs *FS) doubtAll() {
	notify := *fs.notifier.Load()
	fs.table.outdatesAll()
	for _, n := range fs.table.all() {
		n.doubt()
		for _, at := range fs.table.names(n) {
			_ = notify.InvalEntry(at.dir.id, at.name)
		}
		_ = notify.InvalInode(n.id, -1, 0)
	}
}

// changed passes one foreign change on.
func (fs *FS) changed(ev storage.Event) {
	fs.room.hear(ev)
	if ev.Old != nil && ev.New != nil && ev.Old.Path == ev.New.Path {
		fs.touched(ev.New.Path)
		return
	}
	if ev.Old != nil {
		fs.moved(ev.Old.Path)
	}
	if ev.New != nil {
		fs.moved(ev.New.Path)
	}
}

// touched: the entry at p has other attributes, another content, or is another
// file altogether.
func (fs *FS) touched(p storage.Path) {
	parent, name := p.Split()
	if dir := fs.table.find(parent); dir != nil {
		fs.table.outdates(dir, name)
	}
	n := fs.table.find(p)
	if n == nil {
		return
	}
	fs.table.doubt(n)
	notify := *fs.notifier.Load()
	if was := n.stored(); was.IsDir() {
		_ = notify.InvalInode(n.id, -1, 0)
		return
	}
	_ = notify.InvalInode(n.id, 0, -1)
	for _, at := range fs.table.names(n) {
		_ = notify.InvalEntry(at.dir.id, at.name)
	}
}

// moved: the name p stands for something else now, or for nothing.
func (fs *FS) moved(p storage.Path) {
	parent, name := p.Split()
	dir := fs.table.find(parent)
	if dir == nil {
		return // the kernel cannot know a name below what it does not know
	}
	fs.table.outdates(dir, name)
	if n := fs.table.child(dir, name); n != nil {
		n.doubt()
	}
	notify := *fs.notifier.Load()
	_ = notify.InvalEntry(dir.id, name)
	_ = notify.InvalInode(dir.id, -1, 0)
}
