package keeper

import (
	"context"
	"sync"
)

// keyed are locks by name, to be waited for with a context. A waiter that finds
// the lock taken waits: CSI calls the same thing twice, and the second call finds
// it done.
type keyed struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	token chan struct{}
	users int // holder and waiters, guarded by keyed.mu
}

// lock takes the lock of a key and returns what releases it.
func (k *keyed) lock(ctx context.Context, key string) (func(), error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[string]*keyLock)
	}
	l := k.held[key]
	if l == nil {
		l = &keyLock{token: make(chan struct{}, 1)}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case l.token <- struct{}{}:
		return func() {
			<-l.token
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

func targetKey(path string) string { return "target:" + path }
func idKey(id string) string       { return "id:" + id }
