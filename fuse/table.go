package fuse

import (
	"math/rand/v2"
	"sync"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/holdfast-csi/holdfast/storage"
)

// table is what the node knows of inodes and names. A native entry's node has
// the entry's own inode number, which nobody else gives; others get one of ours.
// Every change is noted in the journal before the kernel hears of it, so the
// table outlives the mounter.
type table struct {
	memo *memo

	mu     sync.Mutex
	room   *room
	byID   map[uint64]*node
	byName map[place]*node
	asks   asks
	root   *node
}

func newTable(m *memo, r *room) *table {
	t := &table{memo: m, room: r, byID: map[uint64]*node{}, byName: map[place]*node{}, asks: asks{open: map[*ask]struct{}{}}}
	t.root = t.newNode(gofuse.FUSE_ROOT_ID)
	t.root.links.lookups = 1
	t.byID[t.root.id] = t.root
	return t
}

func (t *table) newNode(id uint64) *node {
	n := &node{id: id, room: t.room, turn: make(chan struct{}, 1)}
	n.links.names = map[place]struct{}{}
	return n
}

// newInode returns a number that is not used in this volume, by chance of 2^-61
// a file. The low ones are left to the kernel's root and to hints.
func newInode() uint64 { return rand.Uint64()>>2 | 1<<40 }

func (t *table) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

func (t *table) all() []*node {
	t.mu.Lock()
	defer t.mu.Unlock()
	nodes := make([]*node, 0, len(t.byID))
	for _, n := range t.byID {
		nodes = append(nodes, n)
	}
	return nodes
}

// child returns the node known under a name, or nil.
func (t *table) child(dir *node, name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[place{dir, name}]
}

// find walks a path over known names.
func (t *table) find(p storage.Path) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.findLocked(p)
}

func (t *table) findLocked(p storage.Path) *node {
	if p == "" {
		return t.root
	}
	dir, name := p.Split()
	up := t.findLocked(dir)
	if up == nil {
		return nil
	}
	return t.byName[place{up, name}]
}

// bind returns the node for the entry e found under a name, made if need be, and
// counts one look-up of the kernel when counted. a is the question that e is the
// answer to: nil is returned when it is outdated. Without one, e is what we have
// put there ourselves.
func (t *table) bind(a *ask, dir *node, name string, e storage.Entry, counted bool) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := place{dir, name}
	if !t.namedLocked(a, at) {
		return nil
	}
	if a == nil {
		t.outdatesNameLocked(at)
	}
	n := t.byName[at]
	if n != nil && !sameFile(n, e) {
		t.unbindLocked(at)
		n = nil
	}
	if n == nil {
		if e.Native && e.Inode > gofuse.FUSE_ROOT_ID {
			n = t.byID[e.Inode]
		}
		if n == nil {
			id := e.Inode
			if !e.Native || id <= gofuse.FUSE_ROOT_ID {
				id = newInode()
			}
			n = t.newNode(id)
			n.mu.entry = e // what it is stands from the first moment; how it is may be doubted
			n.loaded.Store(true)
			t.byID[id] = n
		} else if e.LinkID == "" { // moved by somebody else
			for old := range n.links.names {
				t.unbindLocked(old)
			}
			t.byID[n.id] = n
			if _, err := t.pathLocked(dir); a != nil && err != nil {
				return nil // dir was known below n, so it is somewhere else itself by now
			}
		}
		t.nameLocked(n, at, e)
	}
	if counted {
		n.links.lookups++
		t.countLocked(n, 0)
	}
	return n
}

// nameLocked gives a node one more name.
func (t *table) nameLocked(n *node, at place, e storage.Entry) {
	n.links.names[at] = struct{}{}
	n.links.orphan = false
	t.byName[at] = n
	at.dir.links.children++
	t.memo.note(record{kind: recName, id: n.id, parent: at.dir.id, name: at.name, a: identity(e), b: e.Inode})
}

// identity packs what tells whether an entry is the file of a node.
func identity(e storage.Entry) uint64 {
	id := uint64(e.Mode.Type()) << 1
	if e.Native {
		id |= 1
	}
	return id
}

// countLocked notes how often a node is held. unique is the request that
// changed it, where doing that twice would free the node too early.
func (t *table) countLocked(n *node, unique uint64) {
	t.memo.note(record{kind: recCounts, id: n.id, a: n.links.lookups, b: uint64(max(n.links.opens, 0)), unique: unique})
	if unique != 0 {
		t.memo.remember(unique, intent{inode: n.id, brief: true})
	}
}

// sameFile judges whether e is the file that n stands for. S3's overwriting
// keeps the inode number and drops the mark.
func sameFile(n *node, e storage.Entry) bool {
	was := n.stored()
	if was.Mode.Type() != e.Mode.Type() {
		return false
	}
	if e.Native {
		return e.Inode == n.id
	}
	return !was.Native && was.Inode == e.Inode
}

func (t *table) unbindLocked(at place) {
	n := t.byName[at]
	if n == nil {
		return
	}
	t.rememberLocked(n)
	delete(t.byName, at)
	delete(n.links.names, at)
	t.memo.note(record{kind: recUnname, parent: at.dir.id, name: at.name})
	n.links.orphan = len(n.links.names) == 0
	at.dir.links.children--
	t.dropLocked(n)
	t.dropLocked(at.dir)
}

// dropLocked frees a node that neither the kernel nor a child needs.
func (t *table) dropLocked(n *node) {
	if n == t.root || n.links.lookups > 0 || n.links.opens > 0 || n.links.children > 0 {
		return
	}
	if n.dirty() || n.merging() != nil {
		return // the committer or the merger takes it
	}
	if t.byID[n.id] == n {
		delete(t.byID, n.id)
		t.memo.note(record{kind: recGone, id: n.id})
	}
	for at := range n.links.names {
		delete(n.links.names, at)
		if t.byName[at] == n {
			delete(t.byName, at)
		}
		at.dir.links.children--
		t.dropLocked(at.dir)
	}
}

// unbind takes a name away.
func (t *table) unbind(dir *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := place{dir, name}
	t.outdatesNameLocked(at)
	if n := t.byName[at]; n != nil {
		t.outdatesLocked(n)
	}
	t.unbindLocked(at)
}

// move gives n, which had one name, another one, which replaces what was there. Who
// asked for n meanwhile may have found it under neither, or under the new one.
func (t *table) move(n, dir *node, name string, toDir *node, toName string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, to := place{dir, name}, place{toDir, toName}
	t.outdatesNameLocked(from)
	t.outdatesNameLocked(to)
	t.outdatesLocked(n)
	if replaced := t.byName[to]; replaced != nil {
		t.outdatesLocked(replaced)
	}
	if from == to {
		return
	}
	if t.byName[to] != n {
		t.unbindLocked(to)
		if t.byID[n.id] == n { // else it is forgotten
			t.nameLocked(n, to, n.stored())
		}
	}
	if t.byName[from] != n {
		return
	}
	delete(t.byName, from)
	delete(n.links.names, from)
	t.memo.note(record{kind: recUnname, parent: dir.id, name: name})
	dir.links.children--
	t.dropLocked(dir)
}

// path returns where a node is now: by any of its names. Stale when it has none.
func (t *table) path(n *node) (storage.Path, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pathLocked(n)
}

// paths returns where names in directories are; a place without a name is the node
// itself.
func (t *table) paths(places []place) ([]storage.Path, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	paths := make([]storage.Path, 0, len(places))
	for _, at := range places {
		p, err := t.pathLocked(at.dir)
		if err != nil {
			return nil, err
		}
		if at.name != "" {
			p = p.Join(at.name)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// stand reports whether the paths that paths has returned still are.
func (t *table) stand(places []place, paths []storage.Path) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, at := range places {
		p := paths[i]
		if at.name != "" {
			p, _ = p.Split()
		}
		if t.findLocked(p) != at.dir {
			return false
		}
	}
	return true
}

func (t *table) pathLocked(n *node) (storage.Path, error) {
	if n == t.root {
		return "", nil
	}
	for at := range n.links.names {
		if up, err := t.pathLocked(at.dir); err == nil { // else another name may be in a folder that has one
			return up.Join(at.name), nil
		}
	}
	return "", storage.Errorf(storage.Stale, "node %d has no name any more", n.id)
}

// lastPath is where a node is, or was last: for messages.
func (t *table) lastPath(n *node) storage.Path {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rememberLocked(n)
	return n.links.was
}

func (t *table) rememberLocked(n *node) {
	if p, err := t.pathLocked(n); err == nil {
		n.links.was = p
	}
}

// names returns the places of a node.
func (t *table) names(n *node) []place {
	t.mu.Lock()
	defer t.mu.Unlock()
	places := make([]place, 0, len(n.links.names))
	for at := range n.links.names {
		places = append(places, at)
	}
	return places
}

// orphan reports whether the node lost its last name, and opens how many
// handles it has.
func (t *table) state(n *node) (orphan bool, opens int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.links.orphan, n.links.opens
}

// forget takes back count look-ups.
func (t *table) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return
	}
	n.links.lookups -= min(count, n.links.lookups)
	if n.links.lookups > 0 || n.links.opens > 0 || n.links.children > 0 {
		t.countLocked(n, 0)
	}
	t.dropLocked(n)
}

// open counts a handle, once for each request.
func (t *table) open(n *node, unique uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, done := t.memo.before(unique); done {
		return
	}
	n.links.opens++
	t.countLocked(n, unique&^replayBit)
}

// openNew counts the handle of a file that was just made. A creation that is
// carried out again counts twice: the node is then held until the unmount.
func (t *table) openNew(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.links.opens++
	t.countLocked(n, 0)
}

// release takes a handle back, once for each request, and reports whether it was
// the last one of a file without a name.
func (t *table) release(n *node, unique uint64) (gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, done := t.memo.before(unique); !done {
		n.links.opens--
		t.countLocked(n, unique&^replayBit)
	}
	if n.links.opens > 0 {
		return false
	}
	return n.links.orphan
}

// drop frees a node if nobody needs it.
func (t *table) drop(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(n)
}
