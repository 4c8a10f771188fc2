package csisanity

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A mounter that ends in order, as for an upgrade, hands over what waits for the
// cluster: the next one is there before the cluster answers, and gives the answer.
// Nobody sees an error, and what was written is there.
func TestHandOver(t *testing.T) {
	in := begin(t)
	apart(t)
	in.up(t)
	v := in.create(t, volumeName(t))
	dir := v.mount(t)
	written := writeSynced(t, filepath.Join(dir, "written"), "before")
	v.put(t, "cold", "from S3")
	cold, err := os.Open(filepath.Join(dir, "cold"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cold.Close() })
	old := in.mustStatus(t).component(t, "mounter")

	thaw := in.freeze(t)
	if _, err := written.WriteString(" and meanwhile"); err != nil {
		t.Fatal(err)
	}
	answers := make(chan error, 2)
	go func() {
		got := make([]byte, len("from S3"))
		_, err := cold.ReadAt(got, 0)
		if err == nil && string(got) != "from S3" {
			err = fmt.Errorf("read %q", got)
		}
		answers <- err
	}()
	go func() { answers <- written.Sync() }()
	// They wait, for nothing that this node could do.
	select {
	case err := <-answers:
		t.Fatalf("an answer without a cluster: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := syscall.Kill(old.PID, syscall.SIGTERM); err != nil {
		mustRun(t, asRoot("kill", "-TERM", fmt.Sprint(old.PID)))
	}
	// No program is started for a look: it would close its copy of the file, and
	// wait, too.
	eventually(t, time.Minute, func() error {
		log, err := os.ReadFile(filepath.Join(in.dir, "logs", "mounter.log"))
		if n := bytes.Count(log, []byte(`"msg":"serving"`)); err == nil && n < 2 {
			err = fmt.Errorf("the volume was taken %d times", n)
		}
		return err
	})
	select {
	case err := <-answers:
		t.Fatalf("an answer without a cluster: %v", err)
	default:
	}
	thaw()
	for range cap(answers) {
		select {
		case err := <-answers:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a call that was handed over is not answered")
		}
	}
	if err := written.Close(); err != nil {
		t.Error(err)
	}
	if err := v.holds(t.Context(), "written", "before and meanwhile"); err != nil {
		t.Error(err)
	}
}
