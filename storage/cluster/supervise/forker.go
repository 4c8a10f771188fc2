package supervise

import "runtime"

// forker runs functions on one OS thread that lives until close: the thread whose
// death the kernel takes for the parent's (PR_SET_PDEATHSIG). Without it a child
// would be killed whenever the Go runtime retires the thread that forked it.
type forker struct {
	work chan func()
	done chan struct{}
}

func newForker() *forker {
	f := &forker{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		for fn := range f.work {
			fn()
		}
	}()
	return f
}

// do runs fn on the thread and returns its error.
func (f *forker) do(fn func() error) error {
	result := make(chan error, 1)
	f.work <- func() { result <- fn() }
	return <-result
}

// close ends the thread; no do may be running or follow.
func (f *forker) close() {
	close(f.work)
	<-f.done
}
