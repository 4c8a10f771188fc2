//go:build !invariants

package cache

func (*slab) checkLocked() {}
