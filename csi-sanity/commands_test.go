package csisanity

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unmarshal reads what a command printed with -o json.
func unmarshal[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// described is `holdfast volume describe -o json`.
type described struct {
	Name, ID, Bucket, Access, Phase string
	Size                            int64
	Mounts                          []string
	Used                            *int64
	Placement                       map[string]string
}

func TestUpAgain(t *testing.T) {
	in := shared(t)
	before := in.mustStatus(t)
	out, err := in.run(t.Context(), "up")
	if err != nil || !strings.Contains(out.stderr, "already") || !strings.Contains(out.stdout, before.Endpoints.S3) {
		t.Errorf("up while it runs: %+v, %v", out, err)
	}
	if after := in.mustStatus(t); after.Supervisor != before.Supervisor {
		t.Errorf("another supervisor: %+v, before %+v", after.Supervisor, before.Supervisor)
	}
	for _, c := range before.Processes {
		if !c.Running || !c.Ready || c.PID == 0 {
			t.Errorf("not healthy: %+v", c)
		}
	}
}

func TestVolumeLife(t *testing.T) {
	in := shared(t)
	name := volumeName(t)
	v := in.create(t, name)
	in.must(t, "volume", "create", name, "--size", "10Gi") // the same again
	d := unmarshal[described](t, in.must(t, "volume", "describe", name, "-o", "json"))
	if d.Name != name || d.Bucket != v.Bucket || d.Size != 10<<30 || d.Access != "shared" || d.Phase != "ready" || len(d.Mounts) != 0 {
		t.Errorf("described as %+v", d)
	}
	found := false
	for _, l := range unmarshal[[]described](t, in.must(t, "volume", "list", "-o", "json")) {
		found = found || l.Name == name && l.Bucket == v.Bucket
	}
	if !found {
		t.Error("it is not listed")
	}

	// On a folder that is there, which is put back as it was.
	dir := filepath.Join(in.work, name)
	if err := os.Mkdir(dir, 0o710); err != nil {
		t.Fatal(err)
	}
	in.must(t, "volume", "mount", name, dir)
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	in.must(t, "volume", "expand", name, "--size", "20Gi")
	d = unmarshal[described](t, in.must(t, "volume", "describe", name, "-o", "json"))
	if d.Size != 20<<30 || len(d.Mounts) != 1 || d.Mounts[0] != dir || d.Used == nil {
		t.Errorf("mounted and expanded it is %+v", d)
	}
	eventually(t, 30*time.Second, func() error {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return err
		}
		if size := int64(st.Blocks) * st.Bsize; size != 20<<30 {
			return fmt.Errorf("the mount shows %d bytes", size)
		}
		return nil
	})
	if text := in.must(t, "volume", "describe", name); !strings.Contains(text, dir) {
		t.Errorf("described without its mount:\n%s", text)
	}
	in.must(t, "volume", "unmount", dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o710 {
		t.Errorf("the folder was not put back: %v", err)
	}
	// A folder that is not there is made and goes again.
	made := v.mount(t)
	if err := sameContent(filepath.Join(made, "file"), strings.Repeat("\x00", 1<<20)); err != nil {
		t.Error(err)
	}
	in.must(t, "volume", "unmount", made)
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that the mount made is left: %v", err)
	}

	in.must(t, "volume", "delete", name, "--yes")
	in.fails(t, []string{"volume", "describe", name}, name)
	denied(t, "a deleted volume's keys", onBucket(v.Bucket, "file")["get"](t.Context(), v.client()))
}

func TestReadOnlyVolume(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t), "--access", "read-only")
	v.put(t, "object", "content")
	dir := v.mount(t)
	eventually(t, 5*time.Second, func() error { return sameContent(filepath.Join(dir, "object"), "content") })
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to a read-only volume: %v, want EROFS", err)
	}
}

// Two folders show one volume, and one of them can go.
func TestMountedTwice(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	one := v.mount(t)
	two := filepath.Join(in.work, volumeName(t)+"-two")
	in.must(t, "volume", "mount", v.name, two)
	if err := os.WriteFile(filepath.Join(one, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sameContent(filepath.Join(two, "file"), "content"); err != nil {
		t.Error(err)
	}
	in.must(t, "volume", "unmount", one)
	if err := sameContent(filepath.Join(two, "file"), "content"); err != nil {
		t.Error(err)
	}
}

func TestCredentialsInAShell(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	script := `eval "$("$0" volume credentials "$1" --format env)" && printf '%s ' "$AWS_ENDPOINT_URL" "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" "$AWS_REGION" "$AWS_DEFAULT_REGION" "$BUCKET"`
	cmd := in.command(t.Context())
	shell := exec.CommandContext(t.Context(), "sh", "-c", script, cmd.Path, v.name)
	shell.Env = cmd.Env
	out, err := finish(shell)
	want := strings.Join([]string{v.Endpoint, v.Access, v.Secret, v.Region, v.Region, v.Bucket, ""}, " ")
	if err != nil || out.stdout != want {
		t.Errorf("%q, %v; want %q", out.stdout, err, want)
	}
}

func TestDoctor(t *testing.T) {
	in := shared(t)
	in.must(t, "doctor")
	// A machine that lacks something, in a namespace of its own.
	script := `umount -alt fuse.holdfast; mount --bind "$0" /dev/fuse && exec setpriv --reuid="$1" --regid="$2" --clear-groups env HOLDFAST_STATE="$3" "$4" doctor -o json`
	cover := filepath.Join(in.work, "no-fuse-for-the-doctor")
	if err := os.WriteFile(cover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := finish(asRoot("unshare", "--mount", "sh", "-c", script, cover,
		fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid()), in.dir, filepath.Join(bin, "holdfast")))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("a doctor that finds FUSE missing ends with %v", err)
	}
	for _, f := range unmarshal[[]struct {
		Name, Mend string
		OK         bool
	}](t, out.stdout) {
		if f.OK != (f.Name != "FUSE") || (!f.OK && f.Mend == "") {
			t.Errorf("%+v", f)
		}
	}
}

// ^C while it starts: nothing is left.
func TestInterruptedUp(t *testing.T) {
	in := begin(t)
	cmd := in.command(t.Context(), in.upArgs()...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "master is ready") {
		continue
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(last, "interrupted") {
		t.Errorf("an interrupted up says %q and ends with %v", last, err)
	}
	in.untouched(t)
	in.up(t) // and it can be started again
}

// For a service manager: it stays, and SIGTERM ends everything in order.
func TestForeground(t *testing.T) {
	in := begin(t)
	// It is ended by the clean-up, which comes after the end of the test's context.
	cmd := in.command(context.WithoutCancel(t.Context()), append(in.upArgs(), "--foreground")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() error {
		s, err := in.status(t.Context())
		if err == nil && s.Phase != "ready" {
			err = fmt.Errorf("it is %s", s.Phase)
		}
		return err
	})
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if err := in.nothingLeft(); err != nil {
		t.Error(err)
	}
	in.up(t)
	if err := sameContent(filepath.Join(dir, "file"), "content"); err != nil {
		t.Error(err)
	}
}

// Binaries below a folder that is closed to the users that the services run as.
func TestBinariesOutOfReach(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an ordinary user's services run as that user, who reaches its own files")
	}
	in := begin(t)
	closed := filepath.Join(in.work, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"holdfast", "holdfast-mount"} {
		command(t, "cp", filepath.Join(bin, name), closed)
	}
	cmd := in.command(t.Context(), in.upArgs()...)
	cmd.Path = filepath.Join(closed, "holdfast")
	if _, err := finish(cmd); err != nil {
		t.Fatal(err)
	}
	v := in.create(t, volumeName(t))
	if err := os.WriteFile(filepath.Join(v.mount(t), "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

// A state folder that cannot be used says so before anything is made.
func TestBadStateFolder(t *testing.T) {
	in := begin(t)
	long := *in
	long.dir = filepath.Join(in.work, strings.Repeat("x", 100))
	long.fails(t, in.upArgs(), "too long", "HOLDFAST_STATE")
	file := *in
	file.dir = filepath.Join(in.work, "file")
	if err := os.WriteFile(file.dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file.fails(t, in.upArgs(), "not a folder")
	if os.Getuid() == 0 {
		closed := filepath.Join(in.work, "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		shut := *in
		shut.dir = filepath.Join(closed, "s")
		shut.fails(t, in.upArgs(), closed, "chmod o+x")
	}
	entries, err := os.ReadDir(in.work)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "file" && e.Name() != "closed" {
			t.Errorf("a start that was refused made %s", e.Name())
		}
	}
}
