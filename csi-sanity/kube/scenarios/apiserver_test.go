package scenarios

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

// apiServer is the tests of driver/kube, each on an API server of its own.
func apiServer(t *testing.T) {
	for name, dir := range build.APITests {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, name), "-test.v", "-test.timeout=9m")
		cmd.Dir = filepath.Join(root, dir)
		cmd.Env = append(os.Environ(), "HOLDFAST_KUBE_BIN="+bin)
		cmd.WaitDelay = 5 * time.Second
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err == nil && !bytes.Contains(out, []byte("/real (")) {
			err = errors.New("none has used a real API server")
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
		t.Logf("%4.1f s  %s", time.Since(start).Seconds(), dir)
	}
}
