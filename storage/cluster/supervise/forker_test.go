package supervise

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The parent-death signal follows the forking thread: without the group's own
// thread, the child would die with the one that asked for it.
func TestChildOutlivesTheThreadThatAskedForIt(t *testing.T) {
	f := newForker()
	defer f.close()
	spec := Spec{Name: "a", Path: "/bin/sleep", Args: []string{"1000"}}
	var c *child
	var err error
	onDyingThread(func() { c, err = fork(f, spec, newOutput("")) })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.exited:
		t.Errorf("the child died: %s", c.exit)
	case <-time.After(300 * time.Millisecond):
	}
	c.kill()
	<-c.exited
}

// onDyingThread runs fn on a thread that ends with it. The process's first thread
// never ends: a goroutine that got that one keeps it, and the next one tries.
func onDyingThread(fn func()) {
	release := make(chan struct{})
	defer close(release)
	for ran := false; !ran; {
		done := make(chan bool)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends
			if unix.Gettid() == unix.Getpid() {
				done <- false
				<-release
				return
			}
			fn()
			done <- true
		}()
		ran = <-done
	}
}

func TestForkerReturnsErrors(t *testing.T) {
	f := newForker()
	defer f.close()
	want := errors.New("no")
	if err := f.do(func() error { return want }); !errors.Is(err, want) {
		t.Error(err)
	}
}
