package session

import (
	"testing"
	"time"
)

func answer(status int32, payload ...byte) []byte {
	out := make([]byte, outHeaderSize, outHeaderSize+len(payload))
	native.PutUint32(out[4:], uint32(status))
	return append(out, payload...)
}

// TestCounters: each request in its cell, by the kernel's name for it.
func TestCounters(t *testing.T) {
	var c Counters
	for _, took := range []time.Duration{0, 25 * time.Microsecond, 26 * time.Microsecond, time.Hour} {
		c.note(opRead, took, answer(0))
	}
	c.note(opWrite, time.Millisecond, answer(-eio))
	c.note(opWrite, time.Millisecond, answer(-2))
	for _, op := range []uint32{60, 1000} {
		c.note(op, 0, answer(0))
	}
	got := map[string]Count{}
	for _, n := range c.Counts() {
		n2 := got[n.Op]
		n2.All, n2.IOErrors, n2.Took, n2.Within = n2.All+n.All, n.IOErrors, n.Took, n.Within
		got[n.Op] = n2
	}
	read := got["read"]
	if read.All != 4 || read.Within[0] != 2 || read.Within[1] != 3 || read.Within[countBounds-1] != 3 || read.Took != time.Hour+51*time.Microsecond {
		t.Errorf("read: %+v", read)
	}
	if w := got["write"]; w.All != 2 || w.IOErrors != 1 {
		t.Errorf("write: %+v", w)
	}
	if got["other"].All != 2 || len(got) != 3 {
		t.Errorf("%+v", got)
	}
}

func TestTraffic(t *testing.T) {
	var v Traffic
	v.note(opRead, answer(0, make([]byte, 100)...))
	v.note(opRead, answer(-eio))
	v.note(opWrite, answer(0, 200, 0, 0, 0, 0, 0, 0, 0))
	v.note(opWrite, answer(-eio))
	v.note(opReadDir, answer(0, make([]byte, 50)...))
	if r, w := v.Read.Load(), v.Written.Load(); r != 100 || w != 200 {
		t.Errorf("read %d, written %d", r, w)
	}
}

// What counting costs a request: the clock twice, two additions.
func BenchmarkCount(b *testing.B) {
	var c Counters
	var v Traffic
	out := answer(0, make([]byte, 16)...)
	for b.Loop() {
		began := time.Now()
		c.note(opWrite, time.Since(began), out)
		v.note(opWrite, out)
	}
}
