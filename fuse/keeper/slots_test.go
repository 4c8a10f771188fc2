package keeper_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/fuse/session"
	"github.com/holdfast-csi/holdfast/fuse/session/sessiontest"
	"github.com/holdfast-csi/holdfast/storage"
)

// load is four applications that check what they see.
type load struct {
	dir          string
	ops, longest atomic.Int64
	stop         chan struct{}
	done         chan error
}

func startLoad(dir string) *load {
	l := &load{dir: dir, stop: make(chan struct{}), done: make(chan error, 4)}
	for w, app := range []func(int) error{l.read, l.read, l.write, l.names} {
		go func() {
			for i := w; ; i += 4 {
				select {
				case <-l.stop:
					l.done <- nil
					return
				default:
				}
				begun := time.Now()
				if err := app(i); err != nil {
					l.done <- err
					return
				}
				l.ops.Add(1)
				if d := int64(time.Since(begun)); d > l.longest.Load() {
					l.longest.Store(d)
				}
			}
		}()
	}
	return l
}

// end stops the applications and returns what they have seen.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	for range cap(l.done) {
		select {
		case err := <-l.done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("an operation hangs")
		}
	}
}

func (l *load) read(i int) error {
	i %= 8 // file 0 is one that is invalidated
	b, err := os.ReadFile(filepath.Join(l.dir, sessiontest.Name(i)))
	if err != nil || string(b) != sessiontest.Content(i) {
		return fmt.Errorf("read %q: %w", b, err)
	}
	return nil
}

// write writes file f1 anew and reads it back. A truncate that is run once more
// after its answer would cut off what was written since.
func (l *load) write(i int) error {
	f, err := os.OpenFile(filepath.Join(l.dir, sessiontest.MadeName(1)), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	want := bytes.Repeat([]byte(fmt.Sprintf("%016d", i)), []int{8, 256, 3000, 20000, 70000}[i/4%5])
	for at := 0; at < len(want); at += len(want) / 2 {
		if _, err := f.WriteAt(want[at:at+len(want)/2], int64(at)); err != nil {
			return err
		}
	}
	got := make([]byte, len(want)+1)
	n, _ := f.ReadAt(got, 0)
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("write %d: read back %d bytes of %d, or others", i, n, len(want))
	}
	return nil
}

func (l *load) names(i int) error {
	path := filepath.Join(l.dir, sessiontest.MadeName(100+i))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("x"); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1 {
		return fmt.Errorf("stat %s: %v, %w", path, info, err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is removed and there: %w", path, err)
	}
	return nil
}

// slotsRig is a rig whose mounters keep files and count.
func slotsRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.role.NoResend = true
	r.role.Files = t.TempDir()
	r.role.Replayed = filepath.Join(r.role.Files, "replayed")
	r.must(os.Chmod(filepath.Dir(r.role.Files), 0o755))
	r.must(os.Chmod(r.role.Files, 0o777))
	r.must(os.WriteFile(r.role.Replayed, nil, 0o600))
	r.must(os.Chmod(r.role.Replayed, 0o666))
	return r
}

// replays returns how many requests of dead mounters were run again.
func (r *rig) replays() int {
	r.t.Helper()
	info, err := os.Stat(r.role.Replayed)
	r.must(err)
	return int(info.Size())
}

// killMounter kills and replaces the mounter; lingered says that only its
// successor could free it.
func (r *rig) killMounter() (lingered bool) {
	r.t.Helper()
	old := r.mounter
	r.must(old.cmd.Process.Kill())
	select {
	case <-old.done:
	case <-time.After(20 * time.Millisecond):
		lingered = true
	}
	r.startMounter()
	old.wait(r.t)
	return lingered
}

func sleep(d time.Duration) { <-time.NewTimer(d).C }

// Applications see no error over hundreds of deaths, notifications of data under way
// or not, and no kernel is asked to send anything again.
func TestSlotsOverManyDeaths(t *testing.T) {
	for _, c := range []config{{Uncached: true}, {Uncached: true, Notify: true}} {
		t.Run(fmt.Sprintf("notify=%v", c.Notify), func(t *testing.T) {
			r := slotsRig(t)
			r.manyDeaths(c, 200)
			if r.replays() == 0 {
				t.Error("no request was found in a slot: nothing was shown")
			}
		})
	}
}

// The same without slots: the kernel is asked each time.
func TestResendOverManyDeaths(t *testing.T) {
	if !resends() {
		t.Skip("this kernel cannot resend (6.9)")
	}
	for _, c := range []config{{Uncached: true}, {Uncached: true, Notify: true}} {
		t.Run(fmt.Sprintf("notify=%v", c.Notify), func(t *testing.T) {
			r := slotsRig(t)
			r.role.KeepNoSlots, r.role.NoResend = true, false
			r.manyDeaths(c, 40)
			if n := r.replays(); n != 0 {
				t.Errorf("%d requests were found in slots", n)
			}
		})
	}
}

// manyDeaths kills the mounter under the load.
func (r *rig) manyDeaths(c config, kills int) {
	t := r.t
	t.Helper()
	if testing.Short() {
		kills /= 10
	}
	r.startKeeper()
	r.startMounter()
	target := r.mount("vol", c)
	l := startLoad(target)
	begun, lingered := time.Now(), 0
	for range kills {
		r.serving()
		sleep(5*time.Millisecond + rand.N(35*time.Millisecond))
		if r.killMounter() {
			lingered++
		}
	}
	r.serving()
	l.end(t)
	t.Logf("%d kills in %v, %d lingered, %d requests run again from slots, %d operations, longest %v",
		kills, time.Since(begun).Round(time.Millisecond), lingered, r.replays(), l.ops.Load(), time.Duration(l.longest.Load()))
	// InUse while somebody else's mount namespace has a copy of it, as those of
	// other tests on this machine may for a moment.
	r.eventually("it can be unmounted", func() bool {
		err := r.node.Unmount(t.Context(), target)
		if err != nil && !storage.Is(err, storage.InUse) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// inFlight kills the mounter while it works on a read, and returns the read's end.
func (r *rig) inFlight(target string) <-chan error {
	r.t.Helper()
	f := within(r.t, "open", func() (*os.File, error) { return os.Open(filepath.Join(target, sessiontest.Name(1))) })
	done := make(chan error, 1)
	go func() {
		got := make([]byte, 100)
		n, err := unix.Pread(int(f.Fd()), got, 0)
		if err == nil && string(got[:n]) != sessiontest.Content(1) {
			err = fmt.Errorf("read %q", got[:n])
		}
		_ = f.Close()
		done <- err
	}()
	sleep(100 * time.Millisecond) // it takes 300
	r.killMounter()
	return done
}

func (r *rig) comes(done <-chan error) {
	r.t.Helper()
	select {
	case err := <-done:
		r.must(err)
	case <-time.After(patience):
		r.t.Fatal("the request that was under way is lost")
	}
}

var slow = config{Uncached: true, Slow: 300 * time.Millisecond}

// Without slots, and with nothing sent again, the same request is lost: the tests
// here can fail.
func TestWithoutSlotsRequestsAreLost(t *testing.T) {
	r := slotsRig(t)
	r.role.NoSlots = true
	r.startKeeper()
	r.startMounter()
	target := r.mount("vol", slow)
	done := r.inFlight(target)
	r.works(target, 2) // the successor serves
	select {
	case err := <-done:
		t.Fatalf("somebody has answered: %v", err)
	case <-time.After(time.Second):
	}
	r.mounter.kill(t)
	r.keeper.kill(t) // which ends the session
	if err := <-done; err == nil {
		t.Error("the read of a dead session has come to a good end")
	}
}

// Where the keeper gives no slots, the kernel sends it again.
func TestKeeperWithoutSlots(t *testing.T) {
	if !resends() {
		t.Skip("this kernel cannot resend (6.9)")
	}
	r := slotsRig(t)
	r.role.KeepNoSlots, r.role.NoResend = true, false
	r.startKeeper()
	r.startMounter()
	target := r.mount("vol", slow)
	for range 3 {
		r.comes(r.inFlight(target))
		r.serving()
	}
	if n := r.replays(); n != 0 {
		t.Errorf("%d requests were found in slots that are not there", n)
	}
}

// The slots outlive the keeper, in the mounter; and then the mounter, in the next
// keeper.
func TestSlotsOutliveTheKeeper(t *testing.T) {
	r := slotsRig(t)
	r.startKeeper()
	r.startMounter()
	target := r.mount("vol", slow)
	for range 3 {
		r.keeper.kill(t)
		r.startKeeper()
		r.serving()
		before := r.replays()
		r.comes(r.inFlight(target))
		if r.replays() == before {
			t.Error("the answer came from no slot")
		}
		r.serving()
	}
	// One more session shares them.
	r.works(r.mount("two", config{}), 3)
}

// Memory in which another version, or nobody, has written is replaced, and what is
// under way is sent again.
func TestForeignSlotsAreReplaced(t *testing.T) {
	for name, spoil := range map[string]func(b []byte){
		"another version": func(b []byte) { b[8] = 99 },
		"no magic number": func(b []byte) { b[0] ^= 0xff },
	} {
		t.Run(name, func(t *testing.T) {
			r := slotsRig(t)
			r.role.NoResend = false
			r.startKeeper()
			r.startMounter()
			target := r.mount("vol", slow)
			r.spoil(spoil)
			done := r.inFlight(target)
			r.works(target, 2)
			select {
			case err := <-done:
				r.must(err)
			case <-time.After(patience):
				if !resends() {
					t.Skip("this kernel cannot resend (6.9)")
				}
				t.Fatal("the request is lost")
			}
			if n := r.replays(); n != 0 {
				t.Errorf("%d requests were taken from slots of another version", n)
			}
			// The fresh ones are kept.
			r.serving()
			r.role.NoResend = true
			r.comes(r.inFlight(target))
			if r.replays() == 0 {
				t.Error("the fresh slots are not in use")
			}
		})
	}
}

func resends() bool {
	var u unix.Utsname
	var major, minor int
	_ = unix.Uname(&u)
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 9
}

// spoil changes the head of the memory that the keeper holds.
func (r *rig) spoil(f func(b []byte)) {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", r.keeper.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	r.must(err)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if to, _ := os.Readlink(path); to != "/memfd:holdfast-slots (deleted)" {
			continue
		}
		mem, err := os.OpenFile(path, os.O_RDWR, 0)
		r.must(err)
		b := make([]byte, 16)
		_, err = mem.ReadAt(b, 0)
		r.must(err)
		f(b)
		_, err = mem.WriteAt(b, 0)
		r.must(err)
		r.must(mem.Close())
		return
	}
	r.t.Fatal("the keeper holds no slots")
}

// A hundred sessions cost one pool.
func TestSlotsOfManySessionsAreFew(t *testing.T) {
	r := slotsRig(t)
	r.startKeeper()
	r.startMounter()
	var targets []string
	for i := range 40 {
		targets = append(targets, r.mount(fmt.Sprintf("vol%d", i), config{Uncached: true}))
	}
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() {
			if b, err := os.ReadFile(filepath.Join(target, sessiontest.Name(i))); err != nil || string(b) != sessiontest.Content(i) {
				t.Errorf("read %q: %v", b, err)
			}
			big := make([]byte, 3*session.MaxWrite)
			if err := os.WriteFile(filepath.Join(target, sessiontest.MadeName(1000+i)), big, 0o666); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	mapped := 0
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.mounter.cmd.Process.Pid))
	r.must(err)
	for line := range bytes.Lines(status) {
		_, _ = fmt.Sscanf(string(line), "RssShmem: %d", &mapped)
	}
	t.Logf("%d kB of slots for %d sessions after 3 MiB were written to each", mapped, len(targets))
	if mapped == 0 || mapped > 12<<10 {
		t.Errorf("%d kB of slots have memory", mapped)
	}
	r.killMounter()
	for i, target := range targets {
		r.works(target, i)
	}
}
