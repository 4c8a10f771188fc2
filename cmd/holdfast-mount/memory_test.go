package main

import "testing"

// A worker that needs more than its limit is given room, or it would do nothing
// but collect.
func TestMemoryLimitGrows(t *testing.T) {
	for live, want := range map[int64]int64{
		0:         memoryLimit,
		64 << 20:  memoryLimit,
		96 << 20:  144 << 20,
		100 << 20: 160 << 20,
		1 << 30:   1536 << 20,
	} {
		if got := limitFor(live); got != want {
			t.Errorf("%d MiB live: a limit of %d MiB, want %d", live>>20, got>>20, want>>20)
		}
	}
}
