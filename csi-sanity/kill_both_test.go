package csisanity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A dead keeper or mounter is replaced while an application waits. When both die at
// once, what is open gets ENOTCONN, and the mount is made again, with all that
// write(2) had acknowledged: flushed or not, in files old and new, open or renamed.
func TestKillKeeperAndMounter(t *testing.T) {
	in := startState(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	rng := newLoad(t, v, dir).random(0)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	want := map[string][]byte{}
	var writers []*os.File
	defer func() {
		for _, w := range writers {
			_ = w.Close() // it fails, as it should
		}
	}()
	for _, names := range [][]string{{"keeper"}, {"mounter"}, {"keeper", "mounter"}} {
		before := in.mustStatus(t)
		if len(names) == 2 {
			// Small and large ones, over old content and new, none of them flushed.
			for i, size := range []int{1, 5_000, 70_000, 300_000, 2 << 20, 9 << 20} {
				name := fmt.Sprintf("written-%d", i)
				content := noise(rng, size)
				if i%2 == 0 {
					if err := os.WriteFile(filepath.Join(dir, name), noise(rng, size/2), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				w, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				writers = append(writers, w)
				for at := 0; at < size; {
					n := min(size-at, 100_000)
					if _, err := w.WriteAt(content[at:at+n], int64(at)); err != nil {
						t.Fatal(err)
					}
					at += n
				}
				if i == 1 {
					if err := os.Rename(w.Name(), w.Name()+"-renamed"); err != nil {
						t.Fatal(err)
					}
					name += "-renamed"
				}
				want[name] = content
			}
		}
		workers := children(before.component(t, "mounter").PID)
		for _, name := range names {
			kill(t, before.component(t, name).PID)
		}
		if len(names) == 2 {
			for _, pid := range workers { // or it would commit what it has, and end
				kill(t, pid)
			}
			// Asked of a file that is open: the mount point may be served again.
			if _, err := f.ReadAt(make([]byte, 1), 0); err == nil {
				_, err = writers[0].WriteAt([]byte("x"), 1<<20)
				if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
					t.Errorf("a write to a file of a mount that has died: %v, want ENOTCONN", err)
				}
			}
		}
		eventually(t, 60*time.Second, func() error {
			now := in.mustStatus(t)
			for _, name := range names {
				if c := now.component(t, name); c.process == before.component(t, name).process {
					return fmt.Errorf("no new %s: %+v", name, c)
				}
			}
			// The mounter is ready when it serves every mount that the keeper has.
			for _, c := range now.Processes {
				if !c.Ready {
					return fmt.Errorf("not ready: %+v", c)
				}
			}
			return nil
		})
		eventually(t, 60*time.Second, func() error { return sameContent(filepath.Join(dir, "file"), "content") })
		if err := os.WriteFile(fmt.Sprintf("%s/after-%d", dir, len(names)), nil, 0o600); err != nil {
			t.Errorf("after the death of %v: %v", names, err)
		}
		if _, err := f.ReadAt(make([]byte, 7), 0); err != nil && len(names) == 1 {
			t.Errorf("a file that was open all the time, after the death of %v: %v", names, err)
		}
	}
	there := func() {
		for name, content := range want {
			eventually(t, 60*time.Second, func() error {
				if err := holds(filepath.Join(dir, name), content); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				return nil
			})
		}
	}
	there()
	_ = f.Close()
	for _, w := range writers {
		_ = w.Close()
	}
	v.remount(t, dir) // from the cluster, not from the node
	there()
	in.must(t, "volume", "unmount", dir)
	if mounts, err := mountsBelow(in.work); err != nil || len(mounts) > 0 {
		t.Errorf("still mounted: %v %v", mounts, err)
	}
}
