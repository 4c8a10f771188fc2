package session

import (
	"sync/atomic"
	"time"
)

// This file counts requests, for who wants to know: without Counters nothing is
// counted and no clock is read. The counts are by opcode and of all sessions together,
// which is a fixed number of cells; by volume there are the bytes alone. A library's
// histogram was the alternative: it takes a lock or a label for each request.

// countBounds is how many bounds of durations there are.
const countBounds = 11

// Bounds are the durations up to which requests are counted: from 25 us, each four
// times the one before, to 26 s.
var Bounds = func() (b [countBounds]time.Duration) {
	for i := range b {
		b[i] = 25 * time.Microsecond << (2 * i)
	}
	return b
}()

// countedOps bounds the opcodes that are told apart; the others are counted as 0.
const countedOps = 64

// Counters are the requests that sessions have answered. Sessions may share them. The
// zero value counts from now on.
type Counters struct{ ops [countedOps]opCounter }

type opCounter struct {
	// cells are by the first bound that the duration does not exceed; the last is for
	// longer ones.
	cells    [countBounds + 1]atomic.Uint64
	nanos    atomic.Uint64
	ioErrors atomic.Uint64
}

// Count is what was counted of one opcode.
type Count struct {
	// Op is the kernel's name of it in small letters, "other" for what has none here.
	Op string
	// Within are the requests that took at most each of Bounds; All are all.
	Within [countBounds]uint64
	All    uint64
	// Took is the sum of their durations.
	Took time.Duration
	// IOErrors were answered EIO.
	IOErrors uint64
}

// Traffic is what one session has read and written, in bytes.
type Traffic struct{ Read, Written atomic.Uint64 }

// note counts a request that was answered with out.
func (c *Counters) note(op uint32, took time.Duration, out []byte) {
	if op >= countedOps {
		op = 0
	}
	o, cell := &c.ops[op], 0
	for cell < countBounds && took > Bounds[cell] {
		cell++
	}
	o.cells[cell].Add(1)
	o.nanos.Add(uint64(max(took, 0)))
	if status(out) == -eio {
		o.ioErrors.Add(1)
	}
}

// note counts what an answered READ or WRITE has moved.
func (t *Traffic) note(op uint32, out []byte) {
	switch {
	case status(out) != 0:
	case op == opRead:
		t.Read.Add(uint64(len(out) - outHeaderSize))
	case op == opWrite && len(out) >= outHeaderSize+4:
		t.Written.Add(uint64(native.Uint32(out[outHeaderSize:])))
	}
}

const (
	opWrite = 16
	eio     = 5
)

// status is an answer's: 0, or an errno below it.
func status(out []byte) int32 { return int32(native.Uint32(out[4:])) }

// Counts returns what was counted so far, of the opcodes that came.
func (c *Counters) Counts() []Count {
	var all []Count
	for op := range c.ops {
		o := &c.ops[op]
		n := Count{Op: opName(op), Took: time.Duration(o.nanos.Load()), IOErrors: o.ioErrors.Load()}
		for i := range o.cells {
			n.All += o.cells[i].Load()
			if i < countBounds {
				n.Within[i] = n.All
			}
		}
		if n.All > 0 {
			all = append(all, n)
		}
	}
	return all
}

// opNames are those of linux/fuse.h.
var opNames = map[int]string{
	1: "lookup", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink", 11: "rmdir",
	12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release", 20: "fsync", 21: "setxattr",
	22: "getxattr", 23: "listxattr", 24: "removexattr", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir",
	30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 34: "access", 35: "create", 37: "bmap", 38: "destroy", 39: "ioctl",
	40: "poll", 43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek", 47: "copy_file_range", 50: "syncfs", 51: "tmpfile", 52: "statx",
}

func opName(op int) string {
	if name, ok := opNames[op]; ok {
		return name
	}
	return "other"
}
