package cluster_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// wait bounds what must happen soon, on a machine that may be busy.
const wait = 30 * time.Second

var nobody = &supervise.User{UID: 65534, GID: 65534}

// options of a cluster that the test starts by itself, and a life of it.
func options(t *testing.T) cluster.Options {
	t.Helper()
	weed, err := clustertest.Weed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Options{
		Dir:       filepath.Join(shortDir(t), "c"),
		Weed:      weed,
		PortBase:  clustertest.ReserveBase(t),
		AdminKeys: storage.Keys{Access: "admin", Secret: "secret"},
		PKI:       filepath.Join(shortDir(t), "pki"),
	}
}

// shortDir is t.TempDir without the test's name, for unix sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// life starts a cluster that does not outlive the test.
func life(t *testing.T, o cluster.Options) (*cluster.Cluster, error) {
	t.Helper()
	c, err := cluster.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c, c.Start(t.Context())
}

func mustLive(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	c, err := life(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	err := supervise.Poll(ctx, 10*time.Millisecond, func(context.Context) error {
		if !cond() {
			return fmt.Errorf("%s", what)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("in vain waited for: %v", err)
	}
}

func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil }

// wantNothing checks that no process of a life and no port is left.
func wantNothing(t *testing.T, o cluster.Options, before []supervise.Status) {
	t.Helper()
	for _, s := range before {
		if alive(s.PID) {
			t.Errorf("%s lives on as %d", s.Name, s.PID)
		}
	}
	if err := cluster.FreeBase(t.Context(), "127.0.0.1", o.PortBase, 2); err != nil {
		t.Error(err)
	}
}

func s3Status(t *testing.T, c *cluster.Cluster) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Endpoints().S3URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

func TestStartServesS3(t *testing.T) {
	o := options(t)
	begin := time.Now()
	c := mustLive(t, o)
	took := time.Since(begin)
	if code := s3Status(t, c); code != http.StatusForbidden {
		t.Errorf("an unsigned request gets %d", code)
	}
	t.Logf("S3 answers after %s", took.Round(time.Millisecond))
	secretsAreOurs(t, o.Dir)
	if err := c.Start(t.Context()); !storage.Is(err, storage.Invalid) {
		t.Errorf("second Start: %v", err)
	}
}

// secretsAreOurs checks that the folder's secrets are closed to others.
func secretsAreOurs(t *testing.T, dir string) {
	t.Helper()
	for name, want := range map[string]fs.FileMode{"conf/s3.json": 0o600, "conf/security.toml": 0o600, "secret/sse-kek": 0o600, "secret": 0o700, "run": 0o700, "filer": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %o", name, err, want)
		}
	}
}

func TestListensOnPlannedSocketsOnly(t *testing.T) {
	c := clustertest.Start(t)
	e := c.Endpoints()
	run := filepath.Join(c.Dir(), "run")
	want := map[string][]string{
		"master":  {e.MasterHTTP, e.MasterGRPC},
		"volume1": {e.VolumeHTTP[0], e.VolumeGRPC[0]},
		"volume2": {e.VolumeHTTP[1], e.VolumeGRPC[1]},
		"filer":   {e.FilerHTTP, e.FilerGRPC, filepath.Join(run, "filer.sock")},
		"s3":      {strings.TrimPrefix(e.S3URL, "http://"), strings.Replace(e.S3URL, "http://", "", 1), filepath.Join(run, "s3.sock")},
	}
	want["s3"][1] = fmt.Sprintf("127.0.0.1:%d", c.Ports().S3.GRPC)
	for _, s := range c.Status() {
		slices.Sort(want[s.Name])
		if got := listening(t, s.PID); !slices.Equal(got, want[s.Name]) {
			t.Errorf("%s listens on %q, want %q", s.Name, got, want[s.Name])
		}
	}
}

func TestKilledProcessesComeBack(t *testing.T) {
	c := clustertest.Start(t)
	for i, before := range c.Status() {
		begin := time.Now()
		if err := unix.Kill(before.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, before.Name+" ready again", func() bool {
			s := c.Status()[i]
			return s.Restarts == 1 && s.Ready
		})
		t.Logf("%s is ready %s after kill -9", before.Name, time.Since(begin).Round(time.Millisecond))
		// The new one holds the folder's lock as well.
		held := fmt.Sprintf("/proc/%d/fd/3", c.Status()[i].PID)
		if to, err := os.Readlink(held); err != nil || to != filepath.Join(c.Dir(), "lock") {
			t.Errorf("%s is %q, %v", held, to, err)
		}
	}
	if code := s3Status(t, c); code != http.StatusForbidden {
		t.Errorf("an unsigned request gets %d", code)
	}
}

func TestStopLeavesNothing(t *testing.T) {
	o := options(t)
	var said []string
	o.Progress = func(s string) { said = append(said, s) }
	c := mustLive(t, o)
	before := c.Status()
	said = nil
	begin := time.Now()
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped within %s", time.Since(begin).Round(time.Millisecond))
	wantNothing(t, o, before)
	if got := strings.Join(said, "|"); !strings.Contains(got, "S3 gateway|Stopping the filer") || !strings.HasSuffix(got, "master") {
		t.Errorf("progress: %s", got)
	}
	select {
	case <-c.Done():
	default:
		t.Error("not done")
	}
	for _, s := range c.Status() {
		if s.Running || s.LastExit != "exit status 0" {
			t.Errorf("%+v", s)
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := c.Start(t.Context()); err == nil {
		t.Error("started after Stop")
	}

	// The next life has other ports, and the same identity.
	o.PortBase = clustertest.ReserveBase(t)
	mustLive(t, o)
	if state, err := filepath.Glob(filepath.Join(o.Dir, "master", "m*")); err != nil || len(state) != 1 ||
		filepath.Base(state[0]) != fmt.Sprintf("m%d", o.PortBase) {
		t.Errorf("state of the master: %v, %v", state, err)
	}
}

func TestFolderIsUsedOnce(t *testing.T) {
	o := options(t)
	c := mustLive(t, o)
	second := o
	second.PortBase = clustertest.ReserveBase(t)
	begin := time.Now()
	_, err := life(t, second)
	wantError(t, err, storage.InUse, o.Dir, fmt.Sprintf("pid %d", os.Getpid()))
	if time.Since(begin) > wait {
		t.Errorf("refused after %s", time.Since(begin))
	}
	before := c.Status()
	c.Kill()
	wantNothing(t, o, before)
	mustLive(t, o)
}

func TestTakenPortIsNamed(t *testing.T) {
	o := options(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", o.PortBase+7))
	if err != nil {
		t.Fatal(err)
	}
	_, err = life(t, o)
	wantError(t, err, storage.InUse, fmt.Sprintf("%d (filer grpc)", o.PortBase+7), "127.0.0.1")
	_ = l.Close()
	wantNothing(t, o, nil)
}

func TestCrashAtStartSaysWhoAndWhy(t *testing.T) {
	o := options(t)
	weed := o.Weed
	o.Weed = filepath.Join(shortDir(t), "weed")
	script := "#!/bin/sh\ncase \"$2\" in filer) echo 'leveldb: cannot open' >&2; exit 5;; esac\nexec " + weed + " \"$@\"\n"
	if err := os.WriteFile(o.Weed, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := life(t, o)
	wantError(t, err, storage.Unavailable, "filer", "exit status 5", "leveldb: cannot open", o.Dir)
	wantNothing(t, o, c.Status())
	select {
	case <-c.Done():
	default:
		t.Error("not done")
	}
}

func TestNotReadyInTime(t *testing.T) {
	o := options(t)
	o.Weed = filepath.Join(shortDir(t), "weed")
	o.StartTimeout = 3 * time.Second
	script := "#!/bin/sh\n[ \"$1\" = version ] && { echo 'version " + cluster.Build + " x'; exit; }\necho I sleep; exec /bin/sleep 1000\n"
	if err := os.WriteFile(o.Weed, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := life(t, o)
	wantError(t, err, storage.Unavailable, "master", "3s", "connection refused", "I sleep")
	wantNothing(t, o, nil)
}

func TestOtherBuildIsRefused(t *testing.T) {
	o := options(t)
	o.Weed = filepath.Join(shortDir(t), "weed")
	if err := os.WriteFile(o.Weed, []byte("#!/bin/sh\necho version 30GB 4.48\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := life(t, o)
	wantError(t, err, storage.Unsupported, "30GB")
	if _, err := os.Stat(o.Dir); err == nil {
		t.Error("the folder was made")
	}
}

func TestKillEndsAStartUnderWay(t *testing.T) {
	o := options(t)
	c, err := cluster.New(o)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 1)
	go func() { errs <- c.Start(t.Context()) }()
	eventually(t, "a process", func() bool { return len(c.Status()) > 0 })
	before := c.Status()
	c.Kill()
	if err := <-errs; err == nil {
		t.Error("started, though killed")
	}
	wantNothing(t, o, before)
}

func TestKillBeforeStart(t *testing.T) {
	c, err := cluster.New(options(t))
	if err != nil {
		t.Fatal(err)
	}
	c.Kill()
	if err := c.Start(t.Context()); err == nil {
		t.Error("started, though killed")
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func wantError(t *testing.T, err error, kind storage.Kind, parts ...string) {
	t.Helper()
	if !storage.Is(err, kind) {
		t.Fatalf("kind %q of: %v; want %q", storage.KindOf(err), err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q misses %q", err, part)
		}
	}
}
