package csisanity

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// needSQLite is for the tests that run the whole load.
func needSQLite(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Fatalf("the load runs SQLite's own program: %v (deploy/dev/prepare.sh load)", err)
	}
}

// chaos is how long a kill test goes on: a span in CI, or a number of kills.
// HOLDFAST_CHAOS is either.
type chaos struct {
	span  time.Duration
	kills int
}

func howLong(t *testing.T) chaos {
	t.Helper()
	s := os.Getenv("HOLDFAST_CHAOS")
	if s == "" {
		return chaos{span: 12 * time.Second}
	}
	if n, err := strconv.Atoi(s); err == nil {
		return chaos{kills: n}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("HOLDFAST_CHAOS is a number of kills or a span: %v", err)
	}
	return chaos{span: d}
}

// TestKillWorkers kills the process that serves the mount again and again, at a
// random age from 5 ms to a second, under the whole load: no call fails, nothing
// that was acknowledged is lost, nothing is done twice. `make chaos` is a thousand
// kills of it.
func TestKillWorkers(t *testing.T) { killWorkersUnderLoad(t, begin(t)) }

// TestKillWorkersWithResend is the same without slots: what a dead worker had read
// and not answered the kernel sends again, which is the second line.
func TestKillWorkersWithResend(t *testing.T) {
	if !canResend() {
		t.Skip("this kernel cannot send requests again (6.9)")
	}
	in := begin(t)
	in.environment = []string{"HOLDFAST_KEEPER_SLOTS=off"}
	killWorkersUnderLoad(t, in)
}

// canResend reports whether the kernel knows FUSE_NOTIFY_RESEND.
func canResend() bool {
	var u syscall.Utsname
	var release []byte
	if syscall.Uname(&u) != nil {
		return false
	}
	for _, c := range u.Release {
		release = append(release, byte(c))
	}
	var major, minor int
	_, _ = fmt.Sscanf(string(release), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 9
}

// TestKillWorkersOfTheNode is the same in a volume with durability=node, whose commits
// follow in the background.
func TestKillWorkersOfTheNode(t *testing.T) {
	killWorkersUnderLoad(t, begin(t), "--access", "single", "--param", "durability=node")
}

func killWorkersUnderLoad(t *testing.T, in *installation, flags ...string) {
	t.Helper()
	needSQLite(t)
	in.up(t)
	v := in.create(t, volumeName(t), flags...)
	dir := v.mount(t)
	l := newLoad(t, v, dir)
	long := howLong(t)
	t.Logf("seed %d", l.seed)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if long.span > 0 {
		ctx, stop = context.WithTimeout(ctx, long.span)
		defer stop()
	}
	wait := l.start(ctx, stop)
	kills := l.killWorkers(ctx, in.mustStatus(t).component(t, "mounter").PID, long.kills)
	stop()
	wait()
	l.verify()
	t.Logf("seed %d: %d kills in %v, %d operations, longest stall %v", l.seed, kills, l.age(), l.done.Load(), l.longest())
	if !t.Failed() && (kills < 5 || l.done.Load() < 200) {
		t.Errorf("that was no test")
	}
}

// killWorkers kills each worker of the mounter when it is as old as chance wants,
// until ctx ends or there were most kills (0: no limit).
func (l *load) killWorkers(ctx context.Context, mounter, most int) (kills int) {
	rng := l.random(99)
	progress := time.NewTicker(10 * time.Second)
	defer progress.Stop()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	var dead []int
	for most == 0 || kills < most {
		worker := 0
		for worker == 0 {
			select {
			case <-ctx.Done():
				return kills
			case <-look.C:
			}
			for _, pid := range children(mounter) {
				if !slices.Contains(dead, pid) { // one that lingers is dead
					worker = pid
				}
			}
		}
		age := randomAge(rng)
		select {
		case <-ctx.Done():
			return kills
		case <-time.After(age):
		}
		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			l.fail(fmt.Errorf("kill the worker: %w", err))
			return kills
		}
		kills++
		dead = append(dead[max(0, len(dead)-50):], worker)
		l.note("killed worker %d, %v old", worker, age.Round(time.Millisecond))
		select {
		case <-progress.C:
			l.t.Logf("%v: %d kills, %d operations, longest stall %v", l.age().Round(time.Second), kills, l.done.Load(), l.longest())
		default:
		}
	}
	return kills
}

// randomAge is from 5 ms to 1 s, as many below 70 ms as above.
func randomAge(rng *rand.Rand) time.Duration {
	const youngest, oldest = 5 * time.Millisecond, time.Second
	return time.Duration(float64(youngest) * math.Pow(float64(oldest/youngest), rng.Float64()))
}

// dumpGoroutines has the workers write what they are doing to their log, which ends
// them.
func (in *installation) dumpGoroutines() {
	s, err := in.status(context.Background())
	if err != nil {
		return
	}
	for _, c := range s.Processes {
		if c.Name != "mounter" {
			continue
		}
		for _, pid := range children(c.PID) {
			_ = asRoot("kill", "-QUIT", strconv.Itoa(pid)).Run()
		}
	}
}

// TestKillKeeper kills the keeper again and again under the load: nobody notices.
func TestKillKeeper(t *testing.T) {
	needSQLite(t)
	in := startState(t)
	v := in.create(t, volumeName(t))
	l := newLoad(t, v, v.mount(t))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.start(ctx, stop)
	for range 4 {
		if err := l.killComponent(ctx, "keeper"); err != nil {
			if ctx.Err() == nil { // else the load has failed
				l.fail(err)
			}
			break
		}
	}
	stop()
	wait()
	l.verify()
	t.Logf("seed %d: %d operations in %v, longest stall %v", l.seed, l.done.Load(), l.age(), l.longest())
}

// killComponent kills one of the installation's processes and returns when another
// one works in its place and some time has passed.
func (l *load) killComponent(ctx context.Context, name string) error {
	before, err := l.v.in.status(ctx)
	if err != nil {
		return err
	}
	old := before.component(l.t, name)
	l.note("kill %s", name)
	kill(l.t, old.PID) //nolint:contextcheck // a kill is not cancelled
	start := time.Now()
	if err := poll(ctx, 2*time.Minute, func() error {
		now, err := l.v.in.status(ctx)
		if now.Processes == nil {
			return err // while something is down, status is an error too
		}
		if c := now.component(l.t, name); c.process == old.process || !c.Ready {
			return fmt.Errorf("no new %s: %+v", name, c)
		}
		return nil
	}); err != nil {
		return err
	}
	l.note("a new %s is ready", name)
	l.t.Logf("%v: a new %s after %v; %d operations, longest stall %v", l.age(), name, time.Since(start).Round(time.Millisecond), l.done.Load(), l.longest())
	was := l.done.Load()
	return poll(ctx, stallLimit, func() error { // and work goes on
		if l.done.Load() < was+500 {
			return errors.New("the load stands still")
		}
		return nil
	})
}
