package csisanity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// storageProcesses are those without which a mount cannot go on.
var storageProcesses = []string{"master", "volume", "filer", "s3"}

// freeze stops the cluster's processes where they are, as a network that is gone
// would: nobody refuses, nobody answers. The returned func lets them go on; it may
// be called again.
func (in *installation) freeze(t *testing.T) (thaw func()) {
	t.Helper()
	var pids []int
	for _, c := range in.mustStatus(t).Processes {
		if slices.ContainsFunc(storageProcesses, func(name string) bool { return strings.HasPrefix(c.Name, name) }) {
			pids = append(pids, c.PID)
		}
	}
	if len(pids) < len(storageProcesses) {
		t.Fatalf("the cluster has only %d processes", len(pids))
	}
	return freeze(t, pids)
}

// freeze stops processes where they are until the returned func lets them go on,
// or the test ends.
func freeze(t *testing.T, pids []int) (thaw func()) {
	t.Helper()
	// A program that is started closes its copies of our files, and each close of a
	// file that was written waits as long as any other call. So it is done without,
	// where that is allowed.
	tell := func(s syscall.Signal) error {
		var failed error
		for _, pid := range pids {
			err := syscall.Kill(pid, s)
			if errors.Is(err, syscall.EPERM) {
				err = asRoot("kill", fmt.Sprintf("-%d", s), fmt.Sprint(pid)).Run()
			}
			failed = errors.Join(failed, err)
		}
		return failed
	}
	thaw = func() { _ = tell(syscall.SIGCONT) }
	t.Cleanup(thaw)
	if err := tell(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// One thread of each takes the signal and then stops the others; until it gets
	// a processor, they go on and answer.
	eventually(t, time.Minute, func() error {
		for _, pid := range pids {
			if err := stopped(pid); err != nil {
				return err
			}
		}
		return nil
	})
	return thaw
}

// stopped returns nil when each thread of a process is.
func stopped(pid int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return fmt.Errorf("no threads of process %d: %w", pid, err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			return err
		}
		// "pid (name) state …", proc_pid_stat(5); a name may hold anything.
		if _, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):], []byte(" ")); !bytes.HasPrefix(rest, []byte("T")) {
			return fmt.Errorf("%s: %s", thread, stat)
		}
	}
	return nil
}

// stalls is held by a test that has a written file open in a mount that does not
// answer, and by one that must not be held up by it.
var stalls sync.Mutex

// apart keeps such tests from each other. Every program that this process starts has a
// copy of its open files for a moment: closing the one in the mount waits for the
// mount, and only then the program runs.
func apart(t *testing.T) {
	t.Helper()
	stalls.Lock()
	t.Cleanup(stalls.Unlock)
}

// answer is the end of a call that was made in the background.
type answer struct {
	what string
	err  error
	took time.Duration
}

func (a answer) isDeadline(deadline time.Duration) error {
	if !errors.Is(a.err, syscall.EIO) || a.took < deadline-time.Second {
		return fmt.Errorf("%s: %w after %v, want EIO after %v", a.what, a.err, a.took, deadline)
	}
	return nil
}

// What waits for a cluster that does not answer longer than the deadline gets EIO,
// that call alone. What does not need the cluster goes on meanwhile; and when it is
// back, everything does, and nothing is lost.
func TestDeadline(t *testing.T) {
	const deadline = 5 * time.Second
	in := begin(t)
	apart(t)
	in.environment = []string{"HOLDFAST_DEADLINE=" + deadline.String()}
	in.up(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	want := []byte("before, ")
	f := writeSynced(t, filepath.Join(dir, "file"), string(want))
	defer func() { _ = f.Close() }()
	closed := writeSynced(t, filepath.Join(dir, "closed"), "closed ")
	cold := bytes.Repeat([]byte("cold"), 1<<20)
	v.put(t, "cold", string(cold))
	reader, err := os.Open(filepath.Join(dir, "cold"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()

	for round := range 2 {
		thaw := in.freeze(t)
		more := fmt.Sprintf("meanwhile %d, ", round)
		if _, err := f.WriteString(more); err != nil { // which the node acknowledges
			t.Fatalf("write: %v", err)
		}
		want = append(want, more...)
		calls := map[string]func() error{
			"fsync":  f.Sync,
			"create": func() error { return os.WriteFile(filepath.Join(dir, fmt.Sprintf("new-%d", round)), nil, 0o600) },
		}
		if round == 0 { // later it is in a cache
			calls["read"] = func() error { _, err := reader.ReadAt(make([]byte, 100), 0); return err }
			calls["close"] = func() error {
				_, err := closed.WriteString("meanwhile")
				return errors.Join(err, closed.Close())
			}
		}
		answers := make(chan answer, len(calls))
		for what, call := range calls {
			go func() {
				start := time.Now()
				err := call()
				answers <- answer{what, err, time.Since(start)}
			}()
		}
		for range calls {
			select {
			case a := <-answers:
				if err := a.isDeadline(deadline); err != nil {
					t.Error(err)
				} else {
					t.Logf("%s: EIO after %v", a.what, a.took.Round(10*time.Millisecond))
				}
			case <-time.After(time.Minute):
				t.Error("a call does not end")
			}
		}
		// What the node has it gives.
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read of what was just written: %q, %v", got, err)
		}
		thaw()
		// The same handles go on, and nobody remembers the error.
		eventually(t, 30*time.Second, f.Sync)
		if err := sameContent(filepath.Join(dir, "file"), string(want)); err != nil {
			t.Error(err)
		}
	}
	eventually(t, 30*time.Second, func() error {
		got := make([]byte, len(cold))
		_, err := io.ReadFull(io.NewSectionReader(reader, 0, int64(len(cold))), got)
		if err == nil && !bytes.Equal(got, cold) {
			t.Fatal("the file that could not be read has another content")
		}
		return err
	})
	// What could not be committed at the close was, later.
	eventually(t, 30*time.Second, func() error { return v.holds(t.Context(), "closed", "closed meanwhile") })
	eventually(t, 30*time.Second, func() error { return v.holds(t.Context(), "file", string(want)) })
	if err := errors.Join(f.Close(), reader.Close()); err != nil {
		t.Error(err)
	}
	v.remount(t, dir)
	for name, content := range map[string]string{"file": string(want), "closed": "closed meanwhile", "cold": string(cold)} {
		if err := sameContent(filepath.Join(dir, name), content); err != nil {
			t.Error(err)
		}
	}
}

// holds asks over S3.
func (v *volume) holds(ctx context.Context, key, want string) error {
	out, err := v.client().GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String(key)})
	if err != nil {
		return err
	}
	got, err := io.ReadAll(out.Body)
	if err = errors.Join(err, out.Body.Close()); err == nil && string(got) != want {
		err = fmt.Errorf("%s over S3: %d bytes %.40q, want %d bytes %.40q", key, len(got), got, len(want), want)
	}
	return err
}
