package fuse

import (
	iofs "io/fs"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// patch is a change of attributes that can be laid over whatever the store holds
// by the time it is committed.
type patch struct {
	perm         *iofs.FileMode
	uid, gid     *uint32
	mtime, atime *time.Time
	ctime        *time.Time
}

func (p *patch) empty() bool { return *p == patch{} }

// apply lays the patch over e.
func (p *patch) apply(e *storage.Entry) {
	if p.perm != nil {
		e.Mode = e.Mode.Type() | *p.perm
	}
	if p.uid != nil {
		e.UID = *p.uid
	}
	if p.gid != nil {
		e.GID = *p.gid
	}
	if p.mtime != nil {
		e.Mtime = *p.mtime
	}
	if p.atime != nil {
		e.Atime = *p.atime
	}
	if p.ctime != nil {
		e.Ctime = *p.ctime
	}
}

// add lays a later patch over p.
func (p *patch) add(q patch) {
	set(&p.perm, q.perm)
	set(&p.uid, q.uid)
	set(&p.gid, q.gid)
	set(&p.mtime, q.mtime)
	set(&p.atime, q.atime)
	set(&p.ctime, q.ctime)
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}
