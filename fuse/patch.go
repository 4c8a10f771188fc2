package fuse

import (
	iofs "io/fs"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// patch is a change of attributes that can be laid over whatever the store holds
// by the time it is committed.
type patch struct {
	Perm  *iofs.FileMode `json:"perm,omitempty"`
	UID   *uint32        `json:"uid,omitempty"`
	GID   *uint32        `json:"gid,omitempty"`
	Mtime *time.Time     `json:"mtime,omitempty"`
	Atime *time.Time     `json:"atime,omitempty"`
	Ctime *time.Time     `json:"ctime,omitempty"`
}

func (p *patch) empty() bool { return *p == patch{} }

// apply lays the patch over e.
func (p *patch) apply(e *storage.Entry) {
	if p.Perm != nil {
		e.Mode = e.Mode.Type() | *p.Perm
	}
	if p.UID != nil {
		e.UID = *p.UID
	}
	if p.GID != nil {
		e.GID = *p.GID
	}
	if p.Mtime != nil {
		e.Mtime = *p.Mtime
	}
	if p.Atime != nil {
		e.Atime = *p.Atime
	}
	if p.Ctime != nil {
		e.Ctime = *p.Ctime
	}
}

// add lays a later patch over p.
func (p *patch) add(q patch) {
	set(&p.Perm, q.Perm)
	set(&p.UID, q.UID)
	set(&p.GID, q.GID)
	set(&p.Mtime, q.Mtime)
	set(&p.Atime, q.Atime)
	set(&p.Ctime, q.Ctime)
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}
