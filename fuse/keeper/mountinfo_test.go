package keeper

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestSources(t *testing.T) {
	const tag = "01234567"
	for _, id := range []string{"vol", "pvc-1:2/3", "a%b", strings.Repeat("x", maxID)} {
		source, err := sourceOf(tag, id, "bucket")
		if err != nil {
			t.Fatalf("%q: %v", id, err)
		}
		if got, ok := idOf(mount{fsType: fsType, source: source}, tag); !ok || got != id {
			t.Errorf("%q came out as %q, %v", id, got, ok)
		}
	}
	if _, err := sourceOf(tag, strings.Repeat("/", maxID), ""); !storage.Is(err, storage.Invalid) {
		t.Errorf("a source that is too long: %v", err)
	}
	for name, m := range map[string]mount{
		"another keeper's":      {fsType: fsType, source: "holdfast:76543210:vol"},
		"another file system's": {fsType: "fuse.sshfs", source: "holdfast:" + tag + ":vol"},
		"nobody's":              {fsType: fsType, source: "holdfast"},
	} {
		if _, ok := idOf(m, tag); ok {
			t.Errorf("%s mount is taken for ours", name)
		}
	}
}

// A list is cut to what a message holds, and what follows is asked for.
func TestPage(t *testing.T) {
	var all []SessionInfo
	for _, c := range "abcdef" {
		all = append(all, SessionInfo{ID: string(c), Target: strings.Repeat("/x", 8<<10)})
	}
	got, after := 0, ""
	for range all {
		i := 0
		for i < len(all) && all[i].ID <= after {
			i++
		}
		p := page(all[i:])
		got += len(p.Sessions)
		if !p.More {
			break
		}
		after = p.Sessions[len(p.Sessions)-1].ID
	}
	if got != len(all) {
		t.Errorf("%d of %d", got, len(all))
	}
}

// A process is gone when no thread is left but those that may linger.
func TestGone(t *testing.T) {
	p := process{pid: os.Getpid()}
	var err error
	if p.pidfd, err = unix.PidfdOpen(p.pid, 0); err != nil {
		t.Skipf("no pidfd: %v", err)
	}
	defer p.close()
	if p.dead() || p.gone("x") {
		t.Error("this process is said to be gone")
	}
	// All threads of the process under the name that may linger.
	name, stop, started := "hf-test-linger", make(chan struct{}), make(chan struct{})
	defer close(stop)
	go func() {
		runtime.LockOSThread()
		_ = os.WriteFile("/proc/thread-self/comm", []byte(name), 0)
		close(started)
		<-stop
	}()
	select {
	case <-started:
	case <-time.After(10 * time.Second):
		t.Fatal("no thread")
	}
	if p.gone(name) {
		t.Error("a process with other threads is said to be gone")
	}
}
