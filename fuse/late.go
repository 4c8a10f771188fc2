package fuse

import "github.com/holdfast-csi/holdfast/storage"

// What a dead mounter had sent may be carried out after its successor has looked,
// and settled the change as not made. A request that is asked for again finds it so:
// the name is gone, or is at its new place. It is answered as done, once.
//
// A request whose answer was lost while its mounter lives is another matter: it got
// EIO, and may be carried out until the filer has given it up (SEMANTICS.md).

// spared is a file as it was when it kept its name, and its node.
type spared struct {
	node  uint64
	entry storage.Entry
}

// sparedAs keeps in mind what the handles of the file need if it loses its name
// after all.
func (r *redo) sparedAs(node uint64, e storage.Entry) {
	if r.Held {
		r.spared = &spared{node, e}
	}
}

// late ends a change of names that was carried out after it was settled as not made.
func (fs *FS) late(was intent) error {
	if was.spared == nil {
		return nil
	}
	n := fs.table.get(was.spared.node)
	if n == nil {
		return nil
	}
	e := was.spared.entry
	if !n.loaded.Load() {
		n.learn(e, fs.memo)
	}
	if err := fs.noteKept(n); err != nil {
		return err
	}
	n.lose(e.Links <= 1)
	return nil
}
