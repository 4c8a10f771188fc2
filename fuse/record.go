package fuse

import (
	"encoding/binary"

	"github.com/holdfast-csi/holdfast/storage"
)

// What the node remembers of a session, as records of a journal: names, counts,
// what is written and not committed, and what was about to be done. A mounter
// that takes over replays them and knows what the one before knew. Every record
// carries absolute values, so replaying one twice does no harm (cache/journal).

// recordKind is stored: numbers are never used again for something else.
type recordKind byte

const (
	// recName: node id has the name in directory parent; a is its type and whether
	// it is native, b the inode number that the store has for it.
	recName recordKind = iota + 1
	// recUnname: directory parent has no such name.
	recUnname
	// recCounts: the kernel has looked up node id a times and holds b handles.
	recCounts
	// recGone: node id is forgotten.
	recGone
	// recSeen: as recName, for a node that has become native.
	recSeen
	// recStage: something is written over the first a bytes of the content of node
	// id; where that is less than all, the file has b bytes.
	// data are the stage's chunks that nothing shows.
	recStage
	// recWrite: data at offset a.
	recWrite
	// recSpill: the bytes of the stage are in its file from now on, which has number a.
	recSpill
	// recSpan: the stage's file has b bytes at offset a.
	recSpan
	// recCut: the file was truncated to a bytes.
	recCut
	// recPatch: data is the patch that goes with the next commit; with a set, what is
	// added to it.
	recPatch
	// recClean: nothing of node id waits for a commit, nor does what is in the file of
	// number a. Without this word of it no such file is ever removed (stray.go).
	recClean
	// recKept: the last name of node id is gone while it was open; data is its
	// entry, whose chunks are to be freed at the last close.
	recKept
	// recIntent: request unique is about to make, move or remove inode a; or, with b
	// set, it has done already what needs no answer of the store.
	recIntent
	// recWriter: the volume's commits on this node are made by writer a, and b is
	// the number of the last one; with an id, of the last one that was known when what
	// waits of that node was taken over.
	recWriter
	// recCommit: commit a of node id is about to be sent; data are the chunks that
	// were made for it alone.
	recCommit
	// recLanded: commit a was carried out, and what was written since waits; nothing
	// does of what is in the file of number b.
	recLanded
	// recRefused: commit a was not carried out and never will be.
	recRefused
	// recLaid: data is a chunk in the store that holds a range of the stage.
	recLaid
)

// Those of names.
const (
	// recHolder: name is the holder of this mount's orphans, a the epoch of its lease, b
	// the number of the machine's boot.
	recHolder recordKind = iota + 20
	// recRedo: redo id is about to be carried out; data is the redo.
	recRedo
	// recRedone: redo id, of inode a, ended with outcome b.
	recRedone
)

const (
	// recUnkept: node id, of which recKept told, has its name still.
	recUnkept recordKind = iota + 27
)

// Those of merging.
const (
	// recMerge: data is a merging of node id whose update is about to be sent.
	recMerge recordKind = iota + 30
	// recMerged: the merging of node id is carried out, or its chunk is freed.
	recMerged
)

// Those of open directories (cookie.go).
const (
	// recPage: handle id was given the cookies from a on, for names behind name; data
	// is the last one, of b bytes, and the hashes of all.
	recPage recordKind = iota + 33
	// recRewound: the cookies of handle id are not used any more.
	recRewound
)

// record is one of them; fields that a kind does not use are zero.
type record struct {
	kind   recordKind
	id     uint64
	parent uint64
	a, b   uint64
	// unique of the request that this belongs to, where it must not run twice.
	unique uint64
	name   string
	data   []byte
}

// brief reports whether the request that r belongs to waits for no answer of the store.
func (r record) brief() bool {
	return r.kind == recWrite || r.kind == recSpan || r.kind == recCounts || r.kind == recIntent && r.b != 0
}

func (r record) bytes() []byte {
	out := make([]byte, 1, 1+6*binary.MaxVarintLen64+len(r.name)+len(r.data))
	out[0] = byte(r.kind)
	for _, n := range []uint64{r.id, r.parent, r.a, r.b, r.unique, uint64(len(r.name))} {
		out = binary.AppendUvarint(out, n)
	}
	out = append(out, r.name...)
	return append(out, r.data...)
}

// parseRecord is the reverse. data lies in b.
func parseRecord(b []byte) (record, error) {
	if len(b) == 0 {
		return record{}, storage.Errorf(storage.Corrupt, "an empty record")
	}
	r := record{kind: recordKind(b[0])}
	b = b[1:]
	var size uint64
	for _, to := range []*uint64{&r.id, &r.parent, &r.a, &r.b, &r.unique, &size} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return record{}, storage.Errorf(storage.Corrupt, "a record of kind %d is cut short", r.kind)
		}
		*to, b = v, b[n:]
	}
	if size > uint64(len(b)) {
		return record{}, storage.Errorf(storage.Corrupt, "a record of kind %d is cut short", r.kind)
	}
	r.name, r.data = string(b[:size]), b[size:]
	return r, nil
}
