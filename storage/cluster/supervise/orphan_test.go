package supervise_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// asSupervisor makes this test binary a supervisor that can be killed.
const asSupervisor = "HOLDFAST_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	if os.Getenv(asSupervisor) == "" {
		os.Exit(m.Run())
	}
	g := supervise.NewGroup(supervise.Options{})
	if err := g.Start(context.Background(), sh("a", "exec sleep 1000"), sh("b", "exec sleep 1000")); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(g.Status()[0].PID, g.Status()[1].PID)
	select {}
}

func TestNoChildOutlivesAKilledSupervisor(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asSupervisor+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for word := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(word)
		if err != nil || !alive(pid) {
			t.Fatalf("supervisor says %q", line)
		}
		pids = append(pids, pid)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("the end of %d", pid), func() bool { return !running(pid) })
	}
}

// running is alive without the zombies that nobody reaps in a container.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}
