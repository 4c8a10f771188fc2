//go:build !invariants

package cache

func (*Cache) checkLocked() {}

func (*slab) checkLocked() {}
