package session

import "sync"

// hands are the goroutines of a session's handlers, one for each request. A new
// goroutine has a small stack, and the way through go-fuse, the file system and
// gRPC outgrows it several times, each time with a copy: a twentieth of the
// mounter's time when requests are small. So a few of them stay for the next
// request, as deep as they have grown.
type hands struct {
	busy sync.WaitGroup
	// next hands a request to one that stays. stay has a token for each of those.
	next chan func()
	stay chan struct{}
	end  <-chan struct{}
}

// maxIdle is how many stay: as many as requests are commonly under way at once.
const maxIdle = 16

// newHands makes the hands of a session; those that stay leave when end is closed.
func newHands(end <-chan struct{}) *hands {
	return &hands{next: make(chan func()), stay: make(chan struct{}, maxIdle), end: end}
}

// do runs f in a goroutine of its own, without waiting for one.
func (h *hands) do(f func()) {
	h.busy.Add(1)
	select {
	case h.next <- f:
	default:
		go h.run(f)
	}
}

func (h *hands) run(f func()) {
	for {
		h.one(f)
		select {
		case h.stay <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-h.next:
			<-h.stay
		case <-h.end:
			return
		}
	}
}

func (h *hands) one(f func()) {
	defer h.busy.Done()
	f()
}

// wait returns when none is at work.
func (h *hands) wait() { h.busy.Wait() }
