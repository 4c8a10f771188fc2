package keeper_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/keeper"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

func TestMounterKilled(t *testing.T) {
	r := up(t)
	one, two := r.mount("one", config{}), r.mount("two", config{})
	f := within(t, "open", func() (*os.File, error) { return os.Open(filepath.Join(one, sessiontest.Name(1))) })
	defer f.Close()
	r.mounter.kill(t)
	// An application waits; it gets no error.
	got := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(f)
		got <- fmt.Sprint(string(b), err)
	}()
	r.startMounter()
	begun := time.Now()
	select {
	case text := <-got:
		if text != sessiontest.Content(1)+"<nil>" {
			t.Errorf("read %q", text)
		}
	case <-time.After(patience):
		t.Fatal("the read does not return")
	}
	t.Logf("%v from the new mounter's start to the answer", time.Since(begun))
	r.works(two, 2)
	r.serving()
	r.must(f.Close())
	r.must(r.node.Unmount(t.Context(), one))
	r.must(r.node.Unmount(t.Context(), two))
}

// The mounter holds the sessions while there is no keeper, and brings them to the
// next one.
func TestKeeperKilled(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	bind := r.target("bind")
	r.must(r.node.Bind(t.Context(), keeper.BindRequest{ID: "vol", Target: bind}))
	r.keeper.kill(t)
	r.works(target, 1)
	_, err := r.node.Sessions(t.Context())
	r.want(err, storage.Unavailable)

	r.startKeeper()
	r.serving()
	r.works(target, 2)
	s := r.sessions()
	if len(s) != 1 || s[0].ID != "vol" || s[0].Target != target || len(s[0].Binds) != 1 || s[0].Binds[0] != bind || string(s[0].Config) != "{}" {
		t.Fatalf("adopted: %+v", s)
	}
	// Nothing has changed for the node.
	r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
	r.want(r.node.Mount(t.Context(), request("vol", r.target("other"), config{})), storage.Exists)
	// And the new keeper can hand it on.
	r.mounter.kill(t)
	r.startMounter()
	r.works(bind, 3)
	r.must(r.node.Unmount(t.Context(), bind))
	r.must(r.node.Unmount(t.Context(), target))
	if len(r.mounts()) > 0 {
		t.Error("mounts are left")
	}
}

// A request that comes before the mounter has is asked to come again; it makes no
// second session.
func TestMountBeforeAdoption(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	r.keeper.kill(t)
	r.must(r.mounter.cmd.Process.Signal(unix.SIGSTOP))
	r.startKeeper()
	err := make(chan error, 1)
	go func() { err <- r.node.Mount(t.Context(), request("vol", target, config{})) }()
	r.eventually("the session is listed", func() bool { return len(r.sessions()) == 1 })
	if s := r.sessions(); s[0].Serving || s[0].Dead {
		t.Errorf("unserved, not dead: %+v", s)
	}
	r.must(r.mounter.cmd.Process.Signal(unix.SIGCONT))
	r.want(<-err, storage.Unavailable, "try again")
	r.eventually("it is mounted", func() bool { return r.node.Mount(t.Context(), request("vol", target, config{})) == nil })
	r.works(target, 1)
	if len(r.mounts()) != 1 {
		t.Errorf("%d mounts", len(r.mounts()))
	}
}

// A session that ended while there was no keeper is not brought back.
func TestUnmountedWithoutKeeper(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	r.keeper.kill(t)
	r.must(unix.Unmount(target, 0))
	r.startKeeper()
	r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
	r.settle(target)
	r.works(target, 1)
	r.must(r.node.Unmount(t.Context(), target))
}

// What somebody unmounts behind the keeper's back it hears of.
func TestUnmountedBehindItsBack(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	r.must(unix.Unmount(target, 0))
	r.eventually("the session ends", func() bool { return len(r.sessions()) == 0 })
	r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
	r.must(r.node.Unmount(t.Context(), target))
}

func TestBothKilled(t *testing.T) {
	for _, how := range []string{"unmount", "mount", "reap"} {
		t.Run(how, func(t *testing.T) {
			r := up(t)
			target := r.mount("vol", config{})
			f := within(t, "open", func() (*os.File, error) { return os.Open(filepath.Join(target, sessiontest.Name(1))) })
			defer f.Close()
			r.keeper.kill(t)
			r.mounter.kill(t)
			_, err := try(t, "stat", func() (os.FileInfo, error) { return os.Stat(filepath.Join(target, sessiontest.Name(99))) })
			if !strings.Contains(fmt.Sprint(err), unix.ENOTCONN.Error()) {
				t.Fatalf("of a dead session: %v", err)
			}
			r.startKeeper()
			if s := r.sessions(); len(s) != 1 || !s[0].Dead || s[0].ID != "vol" || s[0].Target != target {
				t.Errorf("sessions: %+v", s)
			}
			r.startMounter()
			switch how {
			case "unmount":
				r.must(r.node.Unmount(t.Context(), target))
			case "reap":
				got, err := r.node.Reap(t.Context())
				r.must(err)
				if len(got) != 1 || got[0] != target {
					t.Errorf("reaped %v", got)
				}
			}
			r.must(r.node.Mount(t.Context(), request("vol", target, config{})))
			r.settle(target)
			r.works(target, 2)
			if m := r.mounts(); len(m) != 1 {
				t.Errorf("%d mounts", len(m))
			}
			r.must(r.node.Unmount(t.Context(), target))
		})
	}
}

// Two mounters would answer from two states of the world.
func TestFence(t *testing.T) {
	r := up(t)
	target := r.mount("vol", config{})
	first := r.mounter
	r.startMounter() // refused while the first one lives, and tries on
	r.works(target, 1)
	// Stopped it answers nothing, but it is not gone.
	r.must(first.cmd.Process.Signal(unix.SIGSTOP))
	r.eventually("it is stopped", func() bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", first.cmd.Process.Pid))
		return len(stats) > 0 && !slices.ContainsFunc(stats, func(f string) bool {
			b, err := os.ReadFile(f)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
	read := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(target, sessiontest.Name(2)))
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatalf("somebody answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	first.kill(t)
	select {
	case err := <-read:
		r.must(err)
	case <-time.After(patience):
		t.Fatal("the second mounter does not serve")
	}
	r.must(r.node.Unmount(t.Context(), target))
}

// Applications see no error over many deaths, notifications of data included.
func TestMounterKilledOften(t *testing.T) {
	for _, c := range []config{{Uncached: true}, {Uncached: true, Notify: true}} {
		t.Run(fmt.Sprintf("notify=%v", c.Notify), func(t *testing.T) {
			kills := 40
			if testing.Short() {
				kills = 5
			}
			r := up(t)
			target := r.mount("vol", c)
			var ops, longest atomic.Int64
			stop, done := make(chan struct{}), make(chan error, 4)
			for w := range 4 {
				go func() {
					for i := w; ; i += 4 {
						select {
						case <-stop:
							done <- nil
							return
						default:
						}
						begun := time.Now()
						file := i % 8 // file 0 is the one that is invalidated
						b, err := os.ReadFile(filepath.Join(target, sessiontest.Name(file)))
						if err != nil || string(b) != sessiontest.Content(file) {
							done <- fmt.Errorf("read %q: %w", b, err)
							return
						}
						ops.Add(1)
						if d := int64(time.Since(begun)); d > longest.Load() {
							longest.Store(d)
						}
					}
				}()
			}
			lingered := 0
			for range kills {
				r.serving()
				timer := time.NewTimer(15 * time.Millisecond)
				<-timer.C
				old := r.mounter
				r.must(old.cmd.Process.Kill())
				select {
				case <-old.done:
				case <-time.After(20 * time.Millisecond):
					lingered++ // only its successor can free it
				}
				r.startMounter()
				old.wait(t)
			}
			r.serving()
			close(stop)
			for range 4 {
				select {
				case err := <-done:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(patience):
					t.Fatal("an operation hangs")
				}
			}
			t.Logf("%d kills, %d lingered, %d operations, longest %v", kills, lingered, ops.Load(), time.Duration(longest.Load()))
			r.must(r.node.Unmount(t.Context(), target))
		})
	}
}

// A mounter that dies while it ends a session is not the end of an unmount: the
// next one ends the session.
func TestMounterDiesAtTheEnd(t *testing.T) {
	r := up(t)
	die := filepath.Join(r.dir, "die")
	r.must(os.WriteFile(die, []byte("x"), 0o600))
	r.must(os.Chown(die, mounterUID, mounterUID))
	target := r.mount("vol", config{Die: die})
	done := make(chan error, 1)
	go func() { done <- r.node.Unmount(t.Context(), target) }()
	r.mounter.wait(t)
	r.startMounter()
	select {
	case err := <-done:
		r.must(err)
	case <-time.After(patience):
		t.Fatal("the unmount does not return")
	}
	if all := r.sessions(); len(all) > 0 {
		t.Errorf("sessions are left: %+v", all)
	}
}
