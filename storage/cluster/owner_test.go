package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
)

// asOwner makes this test binary the owner of a cluster, one that can be killed.
const asOwner = "HOLDFAST_TEST_OWNER"

func TestMain(m *testing.M) {
	config := os.Getenv(asOwner)
	if config == "" {
		os.Exit(m.Run())
	}
	var o cluster.Options
	err := json.Unmarshal([]byte(config), &o)
	var c *cluster.Cluster
	if err == nil {
		c, err = cluster.New(o)
	}
	if err == nil {
		err = c.Start(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, s := range c.Status() {
		fmt.Print(s.PID, " ")
	}
	fmt.Println()
	select {}
}

// ownerKilled starts a cluster from another process, kills that with SIGKILL and
// returns at once the pids of weed.
func ownerKilled(t *testing.T, o cluster.Options) []int {
	t.Helper()
	config, err := json.Marshal(map[string]any{"Dir": o.Dir, "Weed": o.Weed, "PortBase": o.PortBase, "AdminKeys": o.AdminKeys, "PKI": o.PKI})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asOwner+"="+string(config))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for word := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(word)
		if err != nil || !alive(pid) {
			t.Fatalf("the owner says %q", line)
		}
		pids = append(pids, pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	return pids
}

func TestOwnerKilledFolderCanBeOpenedAtOnce(t *testing.T) {
	o := options(t)
	pids := ownerKilled(t, o)
	// Other ports: only the lock stands between the two lives.
	o.PortBase = clustertest.ReserveBase(t)
	mustLive(t, o)
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
			t.Errorf("%d of the life before lives on: %s", pid, b)
		}
	}
}
