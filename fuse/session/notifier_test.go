package session

import (
	"log/slog"
	"math"
	"testing"
)

// What is queued twice is sent once, ranges grow together, and order is kept.
func TestNotifierCoalesces(t *testing.T) {
	n := newNotifier(&Session{log: slog.New(slog.DiscardHandler)})
	for _, err := range []error{
		n.InvalInode(7, -1, 0),
		n.InvalEntry(1, "a"),
		n.InvalInode(7, 100, 50),
		n.InvalEntry(1, "b"),
		n.InvalEntry(1, "a"),
		n.Delete(1, 7, "a"),
		n.InvalInode(7, 10, 10),
		n.InvalInode(8, 5, 0),
		n.InvalInode(8, -1, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []struct {
		m  notification
		sp span
	}{
		{notification{code: notifyInvalInode, parent: 7}, span{10, 150}},
		{notification{code: notifyInvalEntry, parent: 1, name: "a"}, span{}},
		{notification{code: notifyInvalEntry, parent: 1, name: "b"}, span{}},
		{notification{code: notifyDelete, parent: 1, child: 7, name: "a"}, span{}},
		{notification{code: notifyInvalInode, parent: 8}, span{5, math.MaxInt64}},
	}
	for i, w := range want {
		m, sp, ok := n.pop()
		if !ok || m != w.m || sp != w.sp {
			t.Errorf("%d: %+v %+v %v, want %+v", i, m, sp, ok, w)
		}
	}
	if _, _, ok := n.pop(); ok {
		t.Error("more was queued")
	}
	if err := n.InvalEntry(1, "a"); err != nil { // sent ones may come again
		t.Fatal(err)
	}
	if _, _, ok := n.pop(); !ok {
		t.Error("a notification was swallowed")
	}
}
